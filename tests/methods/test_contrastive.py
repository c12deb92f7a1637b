"""The contrastive stage: the effect of training on the encoder, and settings that it rejects."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hfssl.errors import ConfigurationError
from hfssl.methods.contrastive import ContrastiveTrainer
from hfssl.models.introspection import body_and_head_parameters
from hfssl.training.forward import mean_features
from tests.helpers.train_tiny import make_trainer


@pytest.mark.parametrize("loss", ["supcon", "cosine"])
def test_training_draws_classes_together_and_leaves_the_head_alone(tiny_backbone, tmp_path, loss):
    settings = {"max_steps": 100, "learning_rate": 3e-3, "per_device_train_batch_size": 8, "save_strategy": "no"}
    settings["contrastive_loss"] = loss
    trainer = make_trainer(tiny_backbone, tmp_path, method="contrastive", logging_steps=5, **settings)
    assert isinstance(trainer, ContrastiveTrainer)
    _, head = body_and_head_parameters(trainer.model)
    before = {name: value.clone() for name, value in trainer.model.named_parameters() if name in head}
    rows = trainer.train_dataset
    batch = trainer.processing_class.pad({"input_ids": rows["input_ids"][:]}, return_tensors="pt")
    labels = torch.tensor(rows["labels"][:])

    def margin() -> float:
        """Mean cosine of rows of one class minus that of rows of different ones."""
        trainer.model.eval()
        with torch.no_grad():
            features = F.normalize(mean_features(trainer.model, batch), dim=-1)
        cosine, same = features @ features.T, labels[:, None] == labels[None]
        return (cosine[same].mean() - cosine[~same].mean()).item()

    start = margin()
    trainer.train()
    losses = [entry["loss/contrastive"] for entry in trainer.state.log_history if "loss/contrastive" in entry]
    assert losses[-1] < losses[0] - 0.15  # at best log(positives), about 1.5
    assert margin() > start + 0.08
    after = dict(trainer.model.named_parameters())
    assert before
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_temperature_that_is_not_positive_is_refused(tiny_backbone, tmp_path):
    with pytest.raises(ConfigurationError, match="contrastive_temperature must be positive, got 0"):
        make_trainer(tiny_backbone, tmp_path, method="contrastive", contrastive_temperature=0)


def test_an_unknown_loss_is_refused(tiny_backbone, tmp_path):
    with pytest.raises(ConfigurationError, match="contrastive_loss must be 'supcon' or 'cosine', got 'triplet'"):
        make_trainer(tiny_backbone, tmp_path, method="contrastive", contrastive_loss="triplet")
