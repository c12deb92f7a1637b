"""Embeddings of texts by a frozen encoder: means over the tokens, scaled to length 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from sklearn.preprocessing import normalize
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.inference.scoring import layer_embeddings
from hfssl.methods.self_training.frozen_encoder.layer_probe import upper_layers

__all__ = ["EmbeddedRows", "embed_layers"]


@dataclass(frozen=True)
class EmbeddedRows:
    """Holds N rows as a frozen encoder represents them.

    Attributes:
        layers (`np.ndarray`): Embeddings of length 1 by H layers, the deepest layer last, `[H, N, D]`.
        labels (`np.ndarray`, *optional*): Class numbers, `[N]`; `None` for rows whose labels must not be used.
    """

    layers: np.ndarray
    labels: np.ndarray | None = None

    @property
    def last(self) -> np.ndarray:
        """Returns the embeddings of the deepest layer, `[N, D]`."""
        return self.layers[-1]

    def __len__(self) -> int:
        return self.layers.shape[1]


def embed_layers(
    encoder: PreTrainedModel,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    upper: bool,
    bf16: bool = False,
    progress: str | None = None,
) -> np.ndarray:
    """Embeds rows by the last layer, or by the layers that a probe reads.

    Collective: every rank must call this.

    Args:
        encoder (`PreTrainedModel`): Encoder or classifier, on the device to use.
        rows (`Dataset`): N tokenized rows; N may be 0.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        upper (`bool`): Whether to use the upper layers (see `upper_layers`) instead of the last one alone.
        bf16 (`bool`, defaults to `False`): Whether to compute in bfloat16, as in training.
        progress (`str`, *optional*): Title of a progress bar; `None` shows no bar.

    Returns:
        Embeddings of length 1, `[H, N, D]`, the deepest layer last.
    """
    layers = upper_layers(encoder.config.get_text_config().num_hidden_layers) if upper else [-1]
    with torch.autocast(encoder.device.type, torch.bfloat16, enabled=bf16):
        found = layer_embeddings(encoder, rows, tokenizer, layers, progress=progress)
    return np.stack([normalize(layer) if len(rows) else layer for layer in found])
