"""The student of a round: its loss and its head."""

from __future__ import annotations

import torch

from tests.helpers.train_tiny import make_trainer


def test_the_penalty_is_a_component_of_the_students_loss_too(tiny_backbone, tmp_path):
    trainer = make_trainer(tiny_backbone, tmp_path, method="self_training", l2_sp_alpha=1.0, save_strategy="no")
    trainer.train()
    assert all("loss/l2_sp" in log for log in trainer.state.log_history if "loss" in log)


def test_the_student_s_head_is_retrained_after_its_steps(tiny_backbone, tmp_path):
    def weights(**options):
        trainer = make_trainer(tiny_backbone, tmp_path, method="self_training", max_steps=2, **options)
        trainer.train()
        return trainer.model.state_dict()

    plain, retrained = weights(save_strategy="no"), weights(save_strategy="no", retrain_head=True)
    differing = {name for name, value in plain.items() if not torch.equal(value, retrained[name])}
    assert differing == {"classifier.weight", "classifier.bias"}
