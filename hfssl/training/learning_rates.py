"""One learning rate for each parameter: higher for a fresh head than for the body, lower for lower layers."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

from hfssl.models.introspection import body_and_head_parameters, encoder_layers, transformers_model

__all__ = ["layer_depths", "parameter_rates", "split_groups"]


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Returns the depth of each parameter of the body below the head: 0 for the pooler and the top layer, more below.

    The embeddings are one below the lowest layer. In a body without a stack of layers every depth is 0.

    Args:
        model (`nn.Module`): A classifier.
    """
    parameters = dict(model.named_parameters())
    body, _ = body_and_head_parameters(model)
    layers = encoder_layers(model)
    if layers is None:
        return dict.fromkeys(body, 0)
    depths = {id(p): len(layers) - 1 - i for i, layer in enumerate(layers) for p in layer.parameters()}
    for name, part in transformers_model(model).base_model.named_children():
        if "embedding" in name:
            depths |= {id(p): len(layers) for p in part.parameters()}
    return {name: depths.get(id(parameters[name]), 0) for name in body}


def parameter_rates(
    model: nn.Module, learning_rate: float, head_learning_rate: float | None, layerwise_decay: float
) -> dict[int, float]:
    """Returns the peak learning rate of each parameter, by its id.

    Args:
        model (`nn.Module`): A classifier, plain, with an adapter, or wrapped for several devices. Parameters outside
            its body belong to the head.
        learning_rate (`float`): Rate of the top layer.
        head_learning_rate (`float`, *optional*): Rate of the head. Default: `learning_rate`.
        layerwise_decay (`float`): Factor for each layer further down (Howard & Ruder 2018, section 3.2: 1/2.6).
    """
    parameters = dict(model.named_parameters())
    _, head = body_and_head_parameters(model)
    rates = {id(parameters[name]): learning_rate * layerwise_decay**d for name, d in layer_depths(model).items()}
    rates |= {id(parameters[name]): head_learning_rate or learning_rate for name in head}
    return rates


def split_groups(optimizer: torch.optim.Optimizer, rates: dict[int, float], learning_rate: float) -> None:
    """Splits each parameter group by rate, in place; parameters at `learning_rate` stay in their group.

    Args:
        optimizer (`torch.optim.Optimizer`): Optimizer that is changed.
        rates (`dict[int, float]`): Learning rate of each parameter, by its id.
        learning_rate (`float`): Rate of the existing groups and of parameters that `rates` lacks.
    """
    for group in list(optimizer.param_groups):
        by_rate: dict[float, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            by_rate[rates.get(id(parameter), learning_rate)].append(parameter)
        group["params"] = by_rate.pop(learning_rate, [])
        for rate, parameters in by_rate.items():
            optimizer.add_param_group({"params": parameters, "weight_decay": group["weight_decay"], "lr": rate})
