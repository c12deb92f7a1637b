"""Rates by parameter: the head's, and one per layer."""

from __future__ import annotations

import pytest

from hfssl.training.learning_rates import layer_depths
from tests.helpers.train_tiny import make_trainer


def rates_by_name(trainer) -> dict[str, float]:
    trainer.create_optimizer()
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}


def test_each_layer_learns_slower_than_the_one_above(tiny_backbone, tmp_path):
    trainer = make_trainer(
        tiny_backbone, tmp_path, layerwise_lr_decay=0.5, learning_rate=8e-4, head_learning_rate=1e-2
    )
    rates = rates_by_name(trainer)
    assert set(rates) == {name for name, _ in trainer.model.named_parameters()}
    layers = trainer.model.config.num_hidden_layers
    for name, rate in rates.items():
        if name.startswith("classifier"):
            assert rate == 1e-2
        elif ".embeddings." in name:
            assert rate == pytest.approx(8e-4 * 0.5**layers)
        elif ".layer." in name:
            number = int(name.split(".layer.")[1].split(".")[0])
            assert rate == pytest.approx(8e-4 * 0.5 ** (layers - 1 - number))
        else:
            assert rate == 8e-4  # the pooler lies next to the head


def test_one_rate_needs_no_more_groups_than_the_stock_optimizer(tiny_backbone, tmp_path):
    trainer = make_trainer(tiny_backbone, tmp_path, learning_rate=1e-3, head_learning_rate=None)
    assert set(rates_by_name(trainer).values()) == {1e-3}
    assert len(trainer.optimizer.param_groups) == 2  # with weight decay and without


def test_an_adapters_weights_have_their_layers_depth(tiny_backbone, tmp_path):
    trainer = make_trainer(tiny_backbone, tmp_path, lora=True)
    depths = layer_depths(trainer.model)
    lora = {depth for name, depth in depths.items() if "lora_" in name}
    assert lora == set(range(trainer.model.config.num_hidden_layers))
