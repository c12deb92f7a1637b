"""The model inside its wrappers, its body and head, its stack of layers, evaluation mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import (
    PreTrainedModel,
)

__all__ = [
    "body_and_head_parameters",
    "encoder_layers",
    "evaluating",
    "own_random_state",
    "transformers_model",
]


def body_and_head_parameters(model: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the parameters of the body (`base_model`, pooler and LoRA weights included) and of the head.

    Args:
        model (`nn.Module`): a transformers model, plain, with an adapter, or wrapped for several devices.

    Returns:
        Two lists that together are the names in `model.named_parameters()`. A tied weight belongs to the body.
    """
    body = {id(parameter) for parameter in transformers_model(model).base_model.parameters()}
    names: tuple[list[str], list[str]] = ([], [])
    for name, parameter in model.named_parameters():
        names[id(parameter) not in body].append(name)
    return names


def transformers_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside peft's, torch's or accelerate's wrappers; a plain model is itself."""
    return next(module for module in model.modules() if isinstance(module, PreTrainedModel))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts the model in eval mode and gives every submodule its own training flag back afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Within the block the CPU's global generator starts from `seed`; afterwards it is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)  # torch.manual_seed would seed the accelerators, too
        yield


def names_below(model: nn.Module, part: nn.Module) -> Iterable[str]:
    """Names, as seen from `model`, of the weights in `part`."""
    prefix = next(name for name, module in model.named_modules() if module is part)
    return (f"{prefix}.{name}" if prefix else name for name in part.state_dict())


def encoder_layers(model: nn.Module) -> nn.ModuleList | None:
    """The stack of encoder layers: the one `nn.ModuleList` with `config.num_hidden_layers` modules of one class.

    `None` where there is no such list, or more than one (architectures that share layers, or with two stacks).
    """
    model = transformers_model(model)
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    stacks = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and len({type(layer) for layer in module}) == 1
    ]
    return stacks[0] if len(stacks) == 1 else None
