"""Checkpoints of a trainer: Ctrl-C, unfinished ones, resuming, and folders that are none."""

from __future__ import annotations

import os
import signal

import pytest

from hfssl.errors import Interrupted, TrainingError
from hfssl.training.trainer import COMPLETE_MARKER, last_complete_checkpoint
from tests.helpers.train_tiny import make_trainer, weights_digest


def train(backbone, folder, **settings):
    trainer = make_trainer(backbone, folder, **settings)
    trainer.train()
    return trainer


def test_the_first_interrupt_saves_and_says_where_and_resuming_gives_the_same_bits(tiny_backbone, tmp_path):
    undisturbed = train(tiny_backbone, tmp_path / "a", method="self_training")
    trainer = make_trainer(tiny_backbone, tmp_path / "b", method="self_training", save_steps=100)
    loss = trainer.objective.loss

    def interrupting(model, labeled, unlabeled, step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(model, labeled, unlabeled, step)

    trainer.objective.loss = interrupting
    with pytest.raises(Interrupted, match=r"after step 5 of 8; state saved in .*checkpoint-5"):
        trainer.train()
    resumed = make_trainer(tiny_backbone, tmp_path / "b", method="self_training", save_steps=100)
    resumed.train(resume_from_checkpoint=True)
    assert weights_digest(resumed.model) == weights_digest(undisturbed.model)


def test_an_unfinished_checkpoint_is_passed_over(tiny_backbone, tmp_path):
    train(tiny_backbone, tmp_path, max_steps=6, save_steps=3)
    assert last_complete_checkpoint(tmp_path).endswith("checkpoint-6")
    (tmp_path / "checkpoint-6" / COMPLETE_MARKER).unlink()
    assert last_complete_checkpoint(tmp_path).endswith("checkpoint-3")


def test_resuming_a_finished_run_takes_no_further_step(tiny_backbone, tmp_path):
    first = train(tiny_backbone, tmp_path, max_steps=5)  # 5 steps end in the middle of an epoch of 2
    again = make_trainer(tiny_backbone, tmp_path, max_steps=5)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 5
    assert weights_digest(again.model) == weights_digest(first.model)


def test_a_folder_that_is_no_checkpoint_is_refused(tiny_backbone, tmp_path):
    trainer = make_trainer(tiny_backbone, tmp_path)
    with pytest.raises(TrainingError, match="Expected a checkpoint in .*, found no trainer_state.json there"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-77"))
