"""Progress bars say what is being done."""

from __future__ import annotations

from tests.helpers.train_tiny import make_trainer


def test_progress_says_what_is_being_done(tiny_backbone, tmp_path, capfd):
    trainer = make_trainer(tiny_backbone, tmp_path, max_steps=2, save_strategy="no")
    assert not capfd.readouterr().out  # quiet runs print no log lines
    from hfssl.runtime.progress import NamedProgress

    trainer.add_callback(NamedProgress("labels only"))
    trainer.train()
    assert "labels only: 100%" in capfd.readouterr().err
