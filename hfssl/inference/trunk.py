"""Trunk reuse: the lower layers run once, the upper ones many times.

The lower layers are most of the cost of MC dropout over a pool. Here they run once, without dropout. Their outputs are
recorded and reused by later passes, so that dropout acts in the top layers and the head only. All code between the
layers (masks, position embeddings) is the model's own and runs again in each pass: only the list of the layers must be
found in an architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from hfssl.models.introspection import encoder_layers, transformers_model

__all__ = ["Trunk", "find_trunk"]

logger = logging.get_logger(__name__)

TOLERANCE = 1e-5


def find_trunk(model: PreTrainedModel, batch: dict[str, Tensor], top_layers: int) -> Trunk | None:
    """Returns the layers below the `top_layers` upper ones, if a replay gives the same logits as the model itself.

    Args:
        model (`PreTrainedModel`): A classifier in eval mode: the replay is tested without dropout.
        batch (`dict[str, Tensor]`): A few padded rows for the test.
        top_layers (`int`): Number of upper layers in which dropout acts; all others run once.

    Returns:
        `None`, with a warning, where the layers are not found or the logits differ by more than 1e-5 (relative to the
        largest logit). Full passes are then necessary.
    """
    layers = encoder_layers(model)
    name = type(transformers_model(model)).__name__
    if layers is None:
        logger.warning("Found no single stack of layers in %s: every stochastic pass runs the whole model.", name)
        return None
    if top_layers >= len(layers):
        return None
    trunk = Trunk(layers, top_layers)
    # In full precision: in half precision another batch size alone makes a larger difference.
    with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
        plain = model(**batch).logits
        with trunk.recording():
            model(**batch)
        with trunk.replaying(copies=2):
            replayed = model(**{key: value.repeat(2, 1) for key, value in batch.items()}).logits
    scale = max(1.0, plain.abs().max().item())
    if not torch.allclose(replayed, plain.repeat(2, 1), rtol=0, atol=TOLERANCE * scale):
        logger.warning(
            "Reusing the lower layers of %s does not give its logits: every stochastic pass runs the whole model.",
            name,
        )
        return None
    return trunk


class Trunk:
    """Records the outputs of the lower layers and returns them in place of a second computation.

    Args:
        layers (`nn.ModuleList`): Layers of the encoder.
        top_layers (`int`): Number of upper layers that are *not* part of the trunk.
    """

    def __init__(self, layers: nn.ModuleList, top_layers: int):
        self.layers = layers[: len(layers) - top_layers]
        self._outputs: list[Any] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records the outputs of a forward pass within the block."""
        self._outputs = []
        with ExitStack() as stack:
            for layer in self.layers:
                handle = layer.register_forward_hook(lambda module, inputs, output: self._outputs.append(output))
                stack.callback(handle.remove)
            yield

    @contextmanager
    def replaying(self, copies: int = 1) -> Iterator[None]:
        """Skips the trunk in forward passes within the block, over the recorded batch repeated `copies` times.

        Args:
            copies (`int`, defaults to 1): Number of repetitions of the batch, along the first dimension.
        """
        with ExitStack() as stack:
            for layer, output in zip(self.layers, self._outputs, strict=True):
                repeated = _repeat(output, copies)
                layer.forward = lambda *args, _output=repeated, **kwargs: _output
                stack.callback(delattr, layer, "forward")
            yield


def _repeat(output: Any, copies: int) -> Any:
    if isinstance(output, Tensor):
        return output.repeat(copies, *[1] * (output.dim() - 1)) if copies > 1 else output
    if isinstance(output, tuple):
        return tuple(_repeat(part, copies) for part in output)
    return output
