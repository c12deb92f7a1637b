"""Progress bars say what is being done."""

from __future__ import annotations

from hfssl.runtime.progress import progress_bar
from tests.helpers.train_tiny import make_trainer


def test_progress_says_what_is_being_done(tiny_backbone, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("hfssl.runtime.progress.is_watched", lambda: True)
    trainer = make_trainer(tiny_backbone, tmp_path, max_steps=2, save_strategy="no")
    assert not capfd.readouterr().out  # quiet runs print no log lines
    from hfssl.runtime.progress import NamedProgress

    trainer.add_callback(NamedProgress("labels only"))
    trainer.train()
    assert "labels only: 100%" in capfd.readouterr().err


def test_no_bars_where_nobody_watches(capfd):
    assert progress_bar(range(3), title="scoring").disable
    list(progress_bar(range(3), title="scoring"))
    assert capfd.readouterr().err == ""
    assert progress_bar(range(3), title=None).disable
