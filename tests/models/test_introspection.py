"""Parts of a model: the parameters of body and head."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hfssl.models.adapters import add_adapter, build_lora_config
from hfssl.models.introspection import (
    body_and_head_parameters,
    encoder_layers,
    evaluating,
    own_random_state,
    transformers_model,
)
from hfssl.models.loading import load_classifier, load_masked_lm
from tests.helpers.encoders import ENCODERS, make_encoder

NAMES = ["plot", "fresh", "rotten"]


def test_body_and_head_parameters(tiny_backbone):
    model = load_classifier(tiny_backbone, NAMES, seed=0)
    body, head = body_and_head_parameters(model)
    assert head == ["classifier.weight", "classifier.bias"]
    assert sorted(body + head) == sorted(name for name, _ in model.named_parameters())
    _, head = body_and_head_parameters(load_masked_lm(tiny_backbone, seed=0))
    assert "cls.predictions.transform.dense.weight" in head
    assert "cls.predictions.decoder.weight" not in head


def test_a_model_is_found_inside_its_wrappers(tiny_backbone):
    model = load_classifier(tiny_backbone, NAMES, seed=0)
    wrapped = nn.Sequential(add_adapter(model, build_lora_config(model), seed=0))
    assert transformers_model(wrapped) is model
    body, head = body_and_head_parameters(wrapped)
    assert any("lora_A" in name for name in body)
    assert {name.rpartition(".")[0].split(".")[-1] for name in head} == {"default", "original_module"}


def test_evaluation_restores_the_flag_of_every_part_even_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    flags = [module.training for module in model.modules()]

    def raises_in_evaluation():
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        raises_in_evaluation()
    assert [module.training for module in model.modules()] == flags == [True, True, False, False]


def test_a_block_with_its_own_random_state_draws_by_its_seed_and_disturbs_nothing():
    before = torch.get_rng_state()
    with own_random_state(7):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with own_random_state(7):
        assert torch.equal(torch.rand(3), first)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_layers_of_an_encoder_are_found(name):
    with torch.random.fork_rng():
        layers = encoder_layers(make_encoder(name))
    assert len(layers) == 2


def test_two_stacks_of_layers_are_no_answer(tiny_backbone):
    model = load_classifier(tiny_backbone, NAMES, seed=0)
    assert encoder_layers(model) is model.bert.encoder.layer
    model.second = nn.ModuleList(nn.Identity() for _ in model.bert.encoder.layer)
    assert encoder_layers(model) is None
