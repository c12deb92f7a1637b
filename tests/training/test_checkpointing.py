"""Checkpoints of a trainer: Ctrl-C, unfinished ones, resuming, and folders that are none."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from hfssl.errors import DamagedFile, Interrupted, TrainingError
from hfssl.training.trainer import COMPLETE_MARKER, last_complete_checkpoint
from tests.helpers.train_tiny import make_trainer, weights_digest


def train(backbone, folder, **settings):
    trainer = make_trainer(backbone, folder, **settings)
    trainer.train()
    return trainer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_interrupt_saves_and_says_where_and_resuming_gives_the_same_bits(tiny_backbone, tmp_path, number):
    undisturbed = train(tiny_backbone, tmp_path / "a", method="self_training")
    trainer = make_trainer(tiny_backbone, tmp_path / "b", method="self_training", save_steps=100)
    loss = trainer.objective.loss

    def interrupting(model, labeled, unlabeled, step):
        if step == 4:
            os.kill(os.getpid(), number)
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


@pytest.mark.parametrize(
    ("first", "then", "steps"),
    [
        ({"max_steps": 4}, {"max_steps": 8}, 8),
        ({"max_steps": -1, "num_train_epochs": 1}, {"max_steps": -1, "num_train_epochs": 3}, None),
    ],
    ids=["steps", "epochs"],
)
def test_a_finished_run_goes_on_when_it_gets_more(tiny_backbone, tmp_path, first, then, steps):
    before = train(tiny_backbone, tmp_path, **first).state.global_step
    again = make_trainer(tiny_backbone, tmp_path, **then)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == (steps or 3 * before) > before
    once_more = make_trainer(tiny_backbone, tmp_path, **then)
    once_more.train(resume_from_checkpoint=True)
    assert once_more.state.global_step == again.state.global_step
    assert weights_digest(once_more.model) == weights_digest(again.model)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json", "method_state.pt"])
def test_a_damaged_checkpoint_is_refused_with_what_to_do(tiny_backbone, tmp_path, name):
    train(tiny_backbone, tmp_path, max_steps=4, save_steps=2)
    path = tmp_path / "checkpoint-4" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=f"{name}' as hfssl wrote it, found another content: delete the folder"):
        make_trainer(tiny_backbone, tmp_path, max_steps=4).train(resume_from_checkpoint=True)
    shutil.rmtree(path.parent)
    again = make_trainer(tiny_backbone, tmp_path, max_steps=4, save_steps=2)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 4


def test_a_folder_that_is_no_checkpoint_is_refused(tiny_backbone, tmp_path):
    trainer = make_trainer(tiny_backbone, tmp_path)
    with pytest.raises(TrainingError, match="Expected a checkpoint in .*, found no trainer_state.json there"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-77"))
