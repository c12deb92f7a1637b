"""Neighbours of the pool's rows in the frozen encoder, for the smoothness term of manifold regularization.

Belkin et al. (2006), "Manifold Regularization", equation 4, with one random neighbour a row and step, as in neural
graph learning (Bui et al. 2018): the expectation is the sum over all edges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.data.tokenization import Row
from hfssl.data.views.base import View
from hfssl.errors import DataError
from hfssl.functional.nearest_neighbors import nearest_neighbors
from hfssl.inference.scoring import mean_embeddings
from hfssl.runtime.seeding import derive_seed

__all__ = ["GraphNeighbors", "NeighborView"]


class GraphNeighbors:
    """Holds the nearest neighbours of each row of the pool; it is found before training and kept in checkpoints.

    Args:
        count (`int`): Number of neighbours.

    Attributes:
        table (`Tensor`, *optional*): `[N, count]` int64.
    """

    def __init__(self, count: int):
        self.count = count
        self.table: Tensor | None = None

    def find(self, model: PreTrainedModel, pool: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
        """Finds the neighbours by the cosine of mean-pooled embeddings. Collective: every rank must call this.

        Args:
            model (`PreTrainedModel`): The classifier before training.
            pool (`Dataset`): N tokenized rows.
            tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.

        Raises:
            DataError: The pool has fewer than two rows.
        """
        if len(pool) < 2:
            raise DataError(f"Expected at least two unlabeled rows for graph_weight, found {len(pool)}: set it to 0.")
        embeddings = np.asarray(mean_embeddings(model, pool, tokenizer))
        table, cosines = nearest_neighbors(embeddings, k=self.count)
        itself = np.arange(len(table))[:, None]
        self.table = torch.from_numpy(np.where(cosines > -1, table, itself).astype(np.int64))

    def commit(self) -> None:
        """Does nothing: neighbours do not change."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the table."""
        return {"table": self.table}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`."""
        self.table = state["table"]


class NeighborView(View):
    """Presents, instead of each row, one of its neighbours, drawn by (seed, draw, row).

    Args:
        graph (`GraphNeighbors`): The neighbours.
        pool (`Dataset`): Tokenized rows of the pool.
        plain (`View`): View that pads rows.
        seed (`int`): Random seed of the run.
    """

    def __init__(self, graph: GraphNeighbors, pool: Dataset, plain: View, seed: int):
        self.graph, self.pool, self.plain, self.seed = graph, pool, plain, seed

    def __call__(self, rows: list[Row]) -> dict[str, Tensor]:
        """Returns padded tensors `[B, L]`."""
        if self.graph.table is None:
            raise RuntimeError("The neighbours are found in before_training().")
        table = self.graph.table
        draws = [derive_seed(self.seed, "neighbor", row["draw"], row["row"]) for row in rows]
        numbers = [int(table[row["row"], draw % table.shape[1]]) for row, draw in zip(rows, draws, strict=True)]
        columns = self.pool[numbers]
        return self.plain([{name: values[i] for name, values in columns.items()} for i in range(len(rows))])
