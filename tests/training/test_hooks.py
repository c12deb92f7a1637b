"""Constructors do not train: work before the first step and after the last one is a hook of `train`."""

from __future__ import annotations

import pytest
import torch

from hfssl.models.heads import logit_layer
from hfssl.models.loading import load_classifier
from hfssl.training.head_fitting import init_head
from tests.helpers.train_tiny import LABEL_NAMES, make_trainer, weights_digest

HEAD_INITS = ["class_means", "logistic"]


def record_hooks(trainer) -> list[str]:
    """Lets the hooks of a trainer write down their calls."""
    calls = []

    def recorded(name):
        hook = getattr(trainer, name)

        def record():
            calls.append(name)
            hook()

        return record

    for name in ("before_training", "after_training"):
        setattr(trainer, name, recorded(name))
    return calls


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("head_init", HEAD_INITS)
def test_the_constructor_leaves_the_weights_as_they_are_given(tiny_backbone, tmp_path, head_init, lora):
    given = load_classifier(tiny_backbone, LABEL_NAMES, seed=1)
    options = {"head_init": head_init, "weight_average_decay": 0.9, "wise_ft_alpha": 0.5}
    model = make_trainer(tiny_backbone, tmp_path, lora=lora, **options).model
    if not lora:
        assert weights_digest(model) == weights_digest(given)
    assert torch.equal(logit_layer(model).weight, logit_layer(given).weight)
    assert torch.equal(logit_layer(model).bias, logit_layer(given).bias)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("head_init", HEAD_INITS)
def test_without_a_step_the_head_is_that_of_the_model_without_an_adapter(tiny_backbone, tmp_path, head_init, lora):
    trainer = make_trainer(tiny_backbone, tmp_path, lora=lora, head_init=head_init, max_steps=0)
    calls = record_hooks(trainer)
    assert trainer.train(resume_from_checkpoint=True).global_step == 0
    assert calls == ["before_training", "after_training"]
    expected = load_classifier(tiny_backbone, LABEL_NAMES, seed=1)
    init_head(head_init, expected, trainer.train_dataset, trainer.processing_class)
    assert torch.equal(logit_layer(trainer.model).weight, logit_layer(expected).weight)
    assert torch.equal(logit_layer(trainer.model).bias, logit_layer(expected).bias)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_the_hooks_run_once_and_the_first_not_when_training_goes_on(tiny_backbone, tmp_path):
    def run() -> tuple[list[str], str]:
        trainer = make_trainer(tiny_backbone, tmp_path, head_init="logistic", weight_average_decay=0.9)
        calls = record_hooks(trainer)
        trainer.train(resume_from_checkpoint=True)
        return calls, weights_digest(trainer.model)

    fresh, whole = run()
    assert fresh == ["before_training", "after_training"]
    (tmp_path / "checkpoint-8/hfssl_complete").unlink()  # as if killed after step 6
    assert run() == (["after_training"], whole)
    assert run() == (["after_training"], whole)  # a finished run is only loaded
