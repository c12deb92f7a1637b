"""What the embeddings of the untrained backbone say of the pool: a second opinion on labels, and rows out of place.

The backbone's, not the teacher's: in the teacher's space each labeled row lies where its label is, so that neither the
trust in the graph nor the p-values of novelty could be measured on these rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.configs import SelfTrainingConfig
from hfssl.files import read_arrays, write_arrays
from hfssl.graph import agreement_weights, graph_trust, knn_graph, spread_labels
from hfssl.novelty import is_strange, novel_rows
from hfssl.scoring import mean_embeddings

__all__ = ["Neighborhood", "find_neighborhood"]


@dataclass(frozen=True)
class Neighborhood:
    """What the embeddings of the untrained backbone say of the pool.

    Attributes:
        probs: `[N, K]` labels spread over the graph; `None` where no graph was asked for.
        certainty: `[N]`, 0 where no label reaches, 1 for one class only; `None` likewise.
        trust: The graph's say in [0, 1], from the labeled rows among themselves.
        novel: `[N]` bool, rows unlike all labeled ones.
    """

    probs: np.ndarray | None
    certainty: np.ndarray | None
    trust: float
    novel: np.ndarray

    @property
    def alarming(self) -> bool:
        """Whether so many rows are novel that the pool itself is doubtful."""
        return is_strange(self.novel)

    def weights(self, teacher_probs: np.ndarray, args: SelfTrainingConfig) -> torch.Tensor:
        """`[N]` factors on the weights of the pseudo-labels, as `args.graph` and `args.filter_novel` ask for."""
        factors = np.ones(len(self.novel))
        if args.graph == "agreement":
            factors *= agreement_weights(teacher_probs, self.probs, self.trust)
        if args.graph == "certainty":
            factors *= (1 - self.trust) + self.trust * self.certainty
        if args.filter_novel and self.alarming and not self.novel.all():
            factors *= ~self.novel
        return torch.from_numpy(factors)

    def save(self, path: Path) -> None:
        """Writes an `.npz` file, whole or not at all."""
        write_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> Neighborhood | None:
        """Reads what `save` wrote; `None` where there is no such file."""
        if not path.exists():
            return None
        found = read_arrays(path)
        return cls(found.get("probs"), found.get("certainty"), float(found["trust"]), found["novel"])


def find_neighborhood(
    encoder: PreTrainedModel,
    labeled: Dataset,
    pool: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    num_classes: int,
    graph: bool,
    seed: int,
    title: str | None = None,
) -> Neighborhood:
    """Embeds the labeled rows and the pool, and asks the neighbours.

    Args:
        encoder: with the backbone's own weights.
        labeled: tokenized rows with `labels`.
        pool: N tokenized rows.
        tokenizer: pads the batches.
        num_classes: K.
        graph: whether to spread labels over a nearest-neighbour graph.
        seed: of the graph.
        title: beside the progress bars; `None` shows none.
    """
    known, unknown = (
        mean_embeddings(encoder, rows, tokenizer, progress=title and f"{title}: embedding {what}")
        for rows, what in ((labeled, "the labeled rows"), (pool, "the pool"))
    )
    novel = novel_rows(known, unknown)
    if not graph:
        return Neighborhood(None, None, 0.0, novel)
    labels = np.concatenate([np.asarray(labeled["labels"][:]), np.full(len(unknown), -1)])
    edges = knn_graph(np.concatenate([known, unknown]), seed=seed)
    spread = spread_labels(edges, labels, num_classes)
    trust = graph_trust(edges, labels, num_classes).weight()
    return Neighborhood(spread.probs[len(known) :], spread.certainty[len(known) :], trust, novel)
