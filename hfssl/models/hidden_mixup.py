"""Mixes hidden states of rows at one layer.

This is TMix (Chen et al. 2020, equations 2 to 4).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from hfssl.errors import ModelError
from hfssl.models.introspection import encoder_layers, transformers_model

__all__ = ["mixed_hidden_states", "mixup_layers"]

DEPTHS = (7 / 12, 9 / 12, 1)  # layers 7, 9 and 12 of BERT-base


def mixup_layers(model: nn.Module) -> list[int]:
    """Returns the numbers, from 1, of the layers at which TMix mixes: 7/12, 9/12 and 12/12 of the depth, rounded up.

    Raises:
        ModelError: The model has no single stack of layers.
    """
    stack = encoder_layers(model)
    if stack is None:
        raise ModelError(
            f"Expected one stack of encoder layers in {type(transformers_model(model)).__name__} to mix hidden states "
            "in, found none or several: use MixMatch, which mixes before the head."
        )
    return sorted({math.ceil(depth * len(stack)) for depth in DEPTHS})


@contextmanager
def mixed_hidden_states(model: nn.Module, layer: int, mask: Tensor, partners: Tensor, share: float) -> Iterator[None]:
    """Replaces the output h of a layer by share h + (1 - share) h[partners] within the block, for one forward pass.

    Where the partner has no token, the row keeps its own state: padding holds nothing to mix.

    Args:
        model (`nn.Module`): Transformers model, plain or wrapped.
        layer (`int`): Number of the layer, from 1.
        mask (`Tensor`): `[B, L]` attention mask of the rows of the pass.
        partners (`Tensor`): `[B]` row numbers.
        share (`float`): Weight of the row itself, in [0, 1].
    """
    stack = encoder_layers(model)
    if stack is None:
        raise ModelError("Expected one stack of encoder layers, found none or several.")
    present = mask[partners][:, :, None]

    def mix(module: nn.Module, inputs: Any, output: Any) -> Any:
        hidden = output if isinstance(output, Tensor) else output[0]
        weight = (1 - share) * present.to(hidden.dtype)
        mixed = (1 - weight) * hidden + weight * hidden[partners]
        return mixed if isinstance(output, Tensor) else (mixed, *output[1:])

    handle = stack[layer - 1].register_forward_hook(mix)
    try:
        yield
    finally:
        handle.remove()
