"""Defines the protocol of a view of a row, and the plain view."""

from __future__ import annotations

from typing import Protocol

import torch
from transformers import PreTrainedTokenizerBase

from hfssl.data.tokenization import Row, is_numeric, pad_tokens

__all__ = ["PlainView", "View"]


class View(Protocol):
    """Presents rows to the model in one way; an objective names the views that it needs."""

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """Collates rows (each with `row` and `draw` in addition to its columns) into padded tensors `[B, L]`."""
        ...


class PlainView:
    """Presents rows unchanged: tokenizer columns padded to the longest row, other numbers stacked.

    Columns of numbers or of equally long lists of numbers become tensors under their own names (`labels`, `weight`
    `[B]`, `pseudo_probs` `[B, K]`); columns of text are dropped.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        batch = pad_tokens(rows, self.tokenizer)
        for name, value in rows[0].items():
            if name in self.tokenizer.model_input_names or name in ("row", "draw", "stream") or not is_numeric(value):
                continue
            batch[name] = torch.tensor([row[name] for row in rows])
        return batch
