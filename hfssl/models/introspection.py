"""Finds the model inside its wrappers, its body, its head and its layers; sets evaluation mode."""

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
    """Returns the names of the body's parameters (with `base_model`, pooler and LoRA weights) and of the head's.

    Args:
        model (`nn.Module`): Transformers model, plain, with an adapter, or wrapped for several devices.

    Returns:
        Two lists that together are the names in `model.named_parameters()`. A tied weight belongs to the body.
    """
    body = {id(parameter) for parameter in transformers_model(model).base_model.parameters()}
    names: tuple[list[str], list[str]] = ([], [])
    for name, parameter in model.named_parameters():
        names[id(parameter) not in body].append(name)
    return names


def transformers_model(model: nn.Module) -> PreTrainedModel:
    """Returns the transformers model inside the wrappers of peft, torch or accelerate, or a plain model itself."""
    return next(module for module in model.modules() if isinstance(module, PreTrainedModel))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Sets the model to eval mode within the block, and restores every submodule's training flag afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Seeds the CPU's global generator with `seed` within the block, and restores its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the accelerators
        yield


def names_below(model: nn.Module, part: nn.Module) -> Iterable[str]:
    """Returns the names in `model` of the weights in `part`."""
    prefix = next(name for name, module in model.named_modules() if module is part)
    return (f"{prefix}.{name}" if prefix else name for name in part.state_dict())


def encoder_layers(model: nn.Module) -> nn.ModuleList | None:
    """Returns the encoder layers: the only `nn.ModuleList` with `config.num_hidden_layers` modules of one class.

    The result is `None` where there is no such list, or more than one (architectures with shared layers or two
    stacks).
    """
    model = transformers_model(model)
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    stacks = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and len({type(layer) for layer in module}) == 1
    ]
    return stacks[0] if len(stacks) == 1 else None
