"""Finds the linear layer that computes the logits, and records or changes its input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from hfssl.errors import ModelError
from hfssl.models.extra_modules import extra_modules_of
from hfssl.models.introspection import transformers_model

__all__ = ["logit_layer", "mixed_head_input", "one_vector_a_row", "seen_by_head"]


def logit_layer(model: nn.Module) -> nn.Linear:
    """Returns the last linear layer with `num_labels` outputs.

    Raises:
        ModelError: if there is no such layer.
    """
    labels = transformers_model(model).config.num_labels
    extra = set(extra_modules_of(model).modules())
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module not in extra]
    fitting = [module for module in linear if module.out_features == labels]
    if not fitting:
        raise ModelError(
            f"Expected {type(transformers_model(model)).__name__} to end in a linear layer with {labels} outputs (its "
            "number of labels), found none: load it with AutoModelForSequenceClassification."
        )
    return fitting[-1]


@contextmanager
def mixed_head_input(model: nn.Module, partners: Tensor, share: float) -> Iterator[None]:
    """Replaces the logit layer's input h `[B, D]` by share * h + (1 - share) * h[partners] within the block."""

    def mix(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *others = inputs
        if hidden.dim() != 2 or len(hidden) != len(partners):
            raise ModelError(
                f"Expected one vector a row before the head, [{len(partners)}, D], got {list(hidden.shape)}: this "
                "architecture cannot be trained with mixup_alpha."
            )
        return (share * hidden + (1 - share) * hidden[partners.to(hidden.device)], *others)

    handle = logit_layer(model).register_forward_pre_hook(mix)
    try:
        yield
    finally:
        handle.remove()


def one_vector_a_row(hidden: Tensor) -> Tensor:
    """Returns the logit layer's input if its shape is `[B, D]`, else raises `ModelError`: no head can be fitted."""
    if hidden.dim() != 2:
        raise ModelError(
            f"Expected one vector a row before the head, [B, D], got {list(hidden.shape)}: leave head_init and "
            "retrain_head out."
        )
    return hidden


@contextmanager
def seen_by_head(layer: nn.Linear) -> Iterator[list[Tensor]]:
    """Yields a list to which each forward pass in the block appends the logit layer's input."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()
