"""Causes that stop a run: a full disk, Ctrl-C, a loss that is not finite. One clear sentence, nothing lost."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hfssl.data.prepare
from hfssl.cli.main import main
from hfssl.methods.supervised import SupervisedObjective
from hfssl.runtime.files import sha256_of
from tests.helpers import ROOT
from tests.helpers.tiny_tables import contents, rows, write

SCRIPT = ROOT / "tests/helpers/fit_tiny.py"


def in_process(words: list[str], *more: str, kill: dict | None = None, **options) -> subprocess.CompletedProcess:
    request = {"argv": ["fit", *words, *more], "kill": kill}
    return subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(request)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        **options,
    )


def last_line(status: int, err: str, *, expected: int) -> str:
    """What a command that stopped with the expected status said at the end, in place of a trace."""
    assert status == expected, err
    assert "Traceback" not in err
    return err.splitlines()[-1]


def test_a_full_disk(words, tmp_path):
    """The file-size limit of the process stands in for the end of the disk: whatever is larger cannot be written."""
    words = ["--train", str(write(tmp_path / "train.csv", rows())), *words]
    limit = 80_000  # between the splits and the weights
    full = in_process(words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    last = last_line(full.returncode, full.stderr, expected=2)
    assert last.startswith("hfssl: error: There is no room on the disk")
    assert "free some space" in last
    assert "--resume" in last
    assert not list(tmp_path.rglob("*.tmp"))
    splits = contents(tmp_path / "run" / "splits")
    assert main(["fit", *words, "--resume"]) == 0
    assert contents(tmp_path / "run" / "splits") == splits


def test_a_full_disk_at_the_very_beginning_is_in_nobodys_way(fit, tmp_path, monkeypatch):
    """The system's own refusal while the splits are written, and then the same command once there is room."""
    table = write(tmp_path / "train.csv", rows())
    replace = os.replace

    def no_room(source, target):
        if Path(target).name == "splits":
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", no_room)
    status, err = fit(table)
    assert status == 2
    assert "There is no room on the disk" in err
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.setattr(os, "replace", replace)
    assert fit(table)[0] == 0


def test_ctrl_c_saves_says_how_to_go_on_and_loses_nothing(words, tmp_path):
    words = [
        "--train",
        str(write(tmp_path / "train.csv", rows(unlabeled=24))),
        *words,
        "--rounds",
        "1",
        "--keep-stages",
    ]
    assert main(["fit", *words, "--output-dir", str(tmp_path / "whole")]) == 0
    for number, title in enumerate(("labels only", "round 1")):
        kill = {"title": title, "step": 3, "signal": "SIGINT"}
        stopped = in_process(words, *["--resume"] * (number > 0), kill=kill)
        last = last_line(stopped.returncode, stopped.stderr, expected=130)
        assert last.startswith("hfssl: stopped: Stopped after step 4 of ")
        assert "state saved in" in last
        assert "run the same command with --resume" in last
        assert not (tmp_path / "run" / "results.json").exists()
    assert main(["fit", *words, "--resume"]) == 0
    weights = [tmp_path / run / "stages" / "self_training" / "model" / "model.safetensors" for run in ("run", "whole")]
    assert sha256_of(weights[0]) == sha256_of(weights[1])


@pytest.fixture
def _listening_to_ctrl_c():
    """As at a terminal: what a shell starts in the background ignores Ctrl-C, the tests included."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_listening_to_ctrl_c")
def test_ctrl_c_outside_of_training(fit, tmp_path, monkeypatch):
    """While tables are read: there is nothing to save, and still no traceback."""
    monkeypatch.setattr(hfssl.data.prepare, "few_label_splits", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    status, err = fit(write(tmp_path / "train.csv", rows()))
    assert status == 130
    assert err.startswith("hfssl: stopped: Interrupted.")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_a_number(fit, tmp_path, monkeypatch):
    table, loss = write(tmp_path / "train.csv", rows()), SupervisedObjective.loss

    def poisoned(self, model, labeled, unlabeled, step):
        parts = loss(self, model, labeled, unlabeled, step)
        return {name: value * (math.nan if step == 7 else 1.0) for name, value in parts.items()}

    monkeypatch.setattr(SupervisedObjective, "loss", poisoned)
    last = last_line(*fit(table), expected=2)
    assert last.startswith("hfssl: error: Expected a finite loss, got NaN or infinity at step 8 of 12")
    kept = tmp_path / "run" / "stages" / "labels_only" / "checkpoints" / "checkpoint-5"
    assert str(kept) in last
    assert (kept / "model.safetensors").exists()
    monkeypatch.setattr(SupervisedObjective, "loss", loss)
    assert fit(table, "--resume")[0] == 0  # from the last good state
