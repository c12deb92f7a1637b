"""The engine's invariants, each by real training runs of a tiny model; `tests/methods/test_matrix.py` has more."""

from __future__ import annotations

import math

import pytest
import torch

from hfssl.errors import TrainingError
from hfssl.runtime import cpu_kernels
from hfssl.training.trainer import last_complete_checkpoint
from tests.helpers.train_tiny import make_dataset, make_trainer, weights_digest


def train(backbone, folder, **settings):
    trainer = make_trainer(backbone, folder, **settings)
    trainer.train()
    return trainer


@pytest.mark.parametrize("lora", [False, True])
def test_evaluating_does_not_change_training(tiny_backbone, tmp_path, lora):
    silent = train(tiny_backbone, tmp_path / "a", max_steps=6, lora=lora, save_strategy="no")
    watched = make_trainer(
        tiny_backbone,
        tmp_path / "b",
        eval_dataset=make_dataset(9, labels=True),
        max_steps=6,
        lora=lora,
        save_strategy="no",
        eval_strategy="steps",
        eval_steps=2,
    )
    watched.train()
    assert sum("eval_loss" in log for log in watched.state.log_history) == 3
    assert weights_digest(watched.model) == weights_digest(silent.model)


def test_components_are_logged_and_sum_to_the_loss(tiny_backbone, tmp_path):
    trainer = train(
        tiny_backbone,
        tmp_path,
        method="self_training",
        max_steps=4,
        logging_steps=2,
        gradient_accumulation_steps=2,
        save_strategy="no",
    )
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == 2
    for log in logs:
        assert log["loss/labeled"] + log["loss/pseudo_labeled"] == pytest.approx(log["loss"], rel=1e-5)
        assert 0 <= log["pseudo_label_agreement"] <= 1


def test_the_head_learns_at_its_own_rate_and_frozen_weights_have_no_optimizer_state(tiny_backbone, tmp_path):
    trainer = make_trainer(tiny_backbone, tmp_path, learning_rate=1e-4, head_learning_rate=3e-3)
    for parameter in trainer.model.bert.embeddings.parameters():
        parameter.requires_grad_(False)
    optimizer = trainer.create_optimizer()
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(trainer.model.named_parameters())
    assert rate[id(named["classifier.weight"])] == rate[id(named["classifier.bias"])] == 3e-3
    assert rate[id(named["bert.encoder.layer.0.attention.self.query.weight"])] == 1e-4
    assert not any(id(p) in rate for name, p in named.items() if "embeddings" in name)
    assert len(rate) == sum(p.requires_grad for p in named.values())


def test_frozen_word_embeddings_stay_as_they_are(tiny_backbone, tmp_path):
    trainer = train(tiny_backbone, tmp_path, freeze_embeddings=True)
    embeddings = trainer.model.get_input_embeddings().weight
    before = make_trainer(tiny_backbone, tmp_path).model
    assert torch.equal(embeddings, before.get_input_embeddings().weight)
    assert embeddings not in trainer.optimizer.state
    named = dict(before.named_parameters())
    frozen = [name for name, value in trainer.model.named_parameters() if torch.equal(value, named[name])]
    assert len(frozen) == 1  # and all else has learned


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tiny_backbone, tmp_path):
    trainer = make_trainer(tiny_backbone, tmp_path, max_steps=8, save_steps=2)
    loss = trainer.objective.loss

    def poisoned(model, labeled, unlabeled, step):
        parts = loss(model, labeled, unlabeled, step)
        return {name: value * (math.nan if step == 5 else 1.0) for name, value in parts.items()}

    trainer.objective.loss = poisoned
    with pytest.raises(TrainingError, match=r"at step 6 of 8; the last good state is in .*checkpoint-4"):
        trainer.train()
    assert last_complete_checkpoint(tmp_path).endswith("checkpoint-4")


def test_dropout_s_masks_are_the_cheap_ones(tiny_backbone, tmp_path, monkeypatch):
    drawn, draw = [], cpu_kernels._bits
    monkeypatch.setattr(cpu_kernels, "_bits", lambda shape: drawn.append(shape) or draw(shape))
    settings = {"method": "supervised", "max_steps": 2, "save_strategy": "no"}
    trainer = train(tiny_backbone, tmp_path / "a", **settings)
    layers = trainer.model.config.num_hidden_layers
    each = 2 + 3 * layers  # embeddings and head; attention, its output and the feed-forward of each layer
    assert len(drawn) >= 2 * each
    assert len(drawn) % each == 0
    drawn.clear()
    train(tiny_backbone, tmp_path / "b", **settings, activation_checkpointing=True)
    assert not drawn
