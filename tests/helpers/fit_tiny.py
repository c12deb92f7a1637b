"""A run of `fit` in a separate process, for tests that kill it; not a test itself.

Usage: python fit_tiny.py '{"options": {...}, "kill": {"title": "round 2", "step": 3}}'
Kills itself with SIGKILL in that step of the first training run whose title holds these words. `"signal": "SIGINT"` in
`kill` presses Ctrl-C instead; `"argv": [...]` in place of `options` goes through the command line.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from pathlib import Path

import torch

import hfssl.pipeline.presets
from hfssl.evaluation.verdict import Verdict
from hfssl.pipeline.presets import Preset
from hfssl.training.trainer import SSLTrainer

TINY = Preset(
    supervised={"max_steps": 12, "save_steps": 5, "logging_steps": 4, "per_device_train_batch_size": 6},
    contrastive={
        "wise_ft_alpha": 0.75,
        "max_steps": 6,
        "save_steps": 2,
        "logging_steps": 3,
        "per_device_train_batch_size": 6,
    },
    pretext={"max_steps": 10, "save_steps": 4, "logging_steps": 5, "eval_steps": 5, "per_device_train_batch_size": 8},
    teacher_overrides=({"contrastive_loss": "cosine"},),
    self_training={
        "max_steps": 8,
        "save_steps": 3,
        "logging_steps": 4,
        "rounds": 2,
        "mc_passes": 3,
        "num_teachers": 2,
        "model_soup": True,
        "student_init": "teacher",
        "retrain_head": True,
        "label_name_prior": True,
        "backbone_probe": True,
        "teacher_probe": True,
        "neighbor_votes": True,
    },
    max_pool_rows=40,
    cross_fit=2,
    fold_teachers={"max_steps": 4},
    fold_students={"max_steps": 4},
    fold_pool_rows=16,
)


# Logistic regression on the backbone's features, without a step: the cheapest run.
PROBE_ONLY = Preset(supervised={"max_steps": 0, "head_init": "logistic"}, contrastive=None, self_training={})


def fit_options(table: Path, backbone: Path, output_dir: Path) -> dict:
    """Options of `fit` with the preset `quick`; the models of all stages stay, for the tests that look at them."""
    return {
        "keep_stages": True,
        "train": str(table),
        "backbone": str(backbone),
        "preset": "quick",
        "labels_per_class": 10,
        "output_dir": str(output_dir),
        "quiet": True,
        "max_length": 32,
    }


def select(monkeypatch, stage: str) -> None:
    """Makes the verdict select this stage."""

    def judge(probs, labels, **others):
        return Verdict(stage, stage != "labels_only", 0.0, [-0.1, 0.1], 0.0, [-0.1, 0.1], ["Made up."], "Made up.")

    monkeypatch.setattr("hfssl.pipeline.fit.judge", judge)


def run(request: dict) -> None:
    """What the usage says, in this process."""
    gc.freeze()  # as in conftest.py
    hfssl.pipeline.presets.PRESETS["quick"] = TINY
    if kill := request.get("kill"):
        training_step = SSLTrainer.training_step

        def deadly(self, *args, **kwargs):
            if kill["title"] in self.title and self.state.global_step == kill["step"]:
                os.kill(os.getpid(), signal.Signals[kill.get("signal", "SIGKILL")])
            return training_step(self, *args, **kwargs)

        SSLTrainer.training_step = deadly
    if "argv" in request:
        from hfssl.cli.main import main as command

        sys.exit(command(request["argv"]))
    from hfssl.pipeline.fit import fit

    fit(**request["options"])


def main() -> None:
    torch.set_num_threads(1)
    run(json.loads(sys.argv[1]))


if __name__ == "__main__":
    main()
