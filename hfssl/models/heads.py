"""Finds the linear layer that computes the logits, and records or changes its input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hfssl.errors import ModelError
from hfssl.models.extra_modules import extra_modules_of
from hfssl.models.introspection import transformers_model
from hfssl.models.tokenizer_checks import is_decoder

__all__ = ["head_rows", "logit_layer", "mixed_head_input", "seen_by_head"]


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


def head_rows(model: nn.Module, hidden: Tensor, input_ids: Tensor) -> Tensor:
    """Returns the logit layer's input for each row, `[B, D]`.

    A decoder's head reads every token, and the model then keeps the logits of the last token that is not padding.

    Args:
        model (`nn.Module`): The classifier.
        hidden (`Tensor`): Input of the logit layer, `[B, D]`, or `[B, L, D]` of a decoder.
        input_ids (`Tensor`): Tokens of the rows, `[B, L]`.

    Raises:
        ModelError: if the input has another shape: no head can be fitted then.
    """
    if hidden.dim() == 2:
        return hidden
    config = transformers_model(model).config
    if hidden.dim() != 3 or hidden.shape[:2] != input_ids.shape or not is_decoder(config):
        raise ModelError(
            f"Expected one vector a row before the head, [B, D], got {list(hidden.shape)}: leave head_init and "
            "retrain_head out."
        )
    tokens = (input_ids != config.get_text_config().pad_token_id).int()
    last = (tokens * torch.arange(input_ids.shape[1], device=input_ids.device)).argmax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last.to(hidden.device)]


@contextmanager
def seen_by_head(layer: nn.Linear) -> Iterator[list[Tensor]]:
    """Yields a list to which each forward pass in the block appends the logit layer's input."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()
