"""One step of a consistency method on a model whose predictions stand in a table; for numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn

from hfssl.config.methods import METHODS
from tests.helpers.table_model import TableModel, token_rows

__all__ = ["HandBench", "tokens_batch", "trainable_table"]


def trainable_table(probs: Sequence[Sequence[float]], dtype: torch.dtype = torch.float64) -> TableModel:
    """A model that predicts line t for token t, and whose logits learn."""
    model = TableModel(probs).to(dtype)
    model.logits.weight.requires_grad_(True)
    return model


def tokens_batch(tokens: Sequence[int], rows: Sequence[int] | None = None) -> dict[str, Tensor]:
    """A batch whose rows have one token each, with the numbers of the rows in the pool."""
    ids = torch.tensor(tokens)[:, None]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return batch if rows is None else batch | {"row": torch.tensor(rows)}


class HandBench:
    """A method's objective on a table; `total_steps` of the run, `pool_rows` rows in the pool."""

    def __init__(self, method: str, model: nn.Module, *, pool_rows: int = 2, total_steps: int = 10, **settings: Any):
        row = METHODS[method]
        self.model = model.train()
        args = row.config_class(output_dir="unused", use_cpu=True, max_steps=total_steps, **settings)
        self.objective = row.trainer_class.objective_class()
        self.objective.setup(self.model, args)
        self.objective.see_data(token_rows([0, 1], labels=[0, 1]), Dataset.from_dict({"text": ["a"] * pool_rows}))

    def loss(
        self, weak: Sequence[int], strong: Sequence[int], rows: Sequence[int] | None = None, step: int = 0
    ) -> dict[str, Tensor]:
        """The terms for the labeled tokens 0 and 1, of classes 0 and 1, and these tokens of the two views."""
        rows = range(len(weak)) if rows is None else rows
        labeled = tokens_batch([0, 1]) | {"labels": torch.tensor([0, 1])}
        views = {"weak": tokens_batch(weak, list(rows)), "strong": tokens_batch(strong, list(rows))}
        return self.objective.loss(self.model, labeled, views, step)

    def step(self, *views: Sequence[int], rows: Sequence[int] | None = None, step: int = 0) -> dict[str, float]:
        """The same as numbers, and what follows a step; the weights stay."""
        parts = self.loss(*views, rows=rows, step=step)
        self.objective.after_step(self.model, step + 1)
        return {name: value.item() for name, value in parts.items()}
