"""What the embeddings of the untrained backbone say of the pool: second opinions on labels, and rows out of place.

The backbone's, not the teacher's: in the teacher's space each labeled row lies where its label is, so that neither the
trust in the graph and in the classes' names nor the p-values of novelty could be measured on these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from scipy.special import expit, softmax
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.configs import SelfTrainingConfig
from hfssl.files import read_arrays, write_arrays
from hfssl.graph import agreement_weights, graph_trust, knn_graph, spread_labels
from hfssl.heads import logistic_weights
from hfssl.label_names import NamePrior, name_texts, weigh_names
from hfssl.metrics.classification import nll
from hfssl.novelty import is_strange, novel_rows
from hfssl.scoring import mean_embeddings

__all__ = ["Neighborhood", "evidence_weight", "find_neighborhood"]


@dataclass(frozen=True)
class Neighborhood:
    """What the embeddings of the untrained backbone say of the pool.

    Attributes:
        probs: `[N, K]` labels spread over the graph; `None` where no graph was asked for.
        certainty: `[N]`, 0 where no label reaches, 1 for one class only; `None` likewise.
        trust: The graph's say in [0, 1], from the labeled rows among themselves.
        novel: `[N]` bool, rows unlike all labeled ones.
        name_strength: How far the classes' names are trusted; 0 where they say nothing or were not asked.
        name_log_odds: `[N, K]`, see `NamePrior`; `None` likewise.
        probe_probs: `[N, K]` by logistic regression on the labeled rows' embeddings; `None` where it was not asked.
        probe_held_out: `[V, K]`, the same of held-out rows; `None` likewise.
    """

    probs: np.ndarray | None
    certainty: np.ndarray | None
    trust: float
    novel: np.ndarray
    name_strength: float = 0.0
    name_log_odds: np.ndarray | None = None
    probe_probs: np.ndarray | None = None
    probe_held_out: np.ndarray | None = None

    @property
    def names(self) -> NamePrior | None:
        """What the classes' names say of the pool, if they say anything."""
        return None if self.name_log_odds is None else NamePrior(self.name_strength, self.name_log_odds)

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

    def joined(self, teacher_probs: np.ndarray, probe_weight: float) -> np.ndarray:
        """A teacher's `[N, K]` probabilities, mixed with those of the probe and multiplied by what the names say."""
        probs = teacher_probs
        if self.probe_probs is not None:
            probs = ((1 - probe_weight) * probs + probe_weight * self.probe_probs).astype(probs.dtype)
        return probs if self.names is None else self.names.applied(probs)

    def save(self, path: Path) -> None:
        """Writes an `.npz` file, whole or not at all."""
        write_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> Neighborhood | None:
        """Reads what `save` wrote; `None` where there is no such file."""
        if not path.exists():
            return None
        found = read_arrays(path)
        scalars = {name: float(found.pop(name)) for name in ("trust", "name_strength")}
        return cls(**{"probs": None, "certainty": None} | found | scalars)


def evidence_weight(first: np.ndarray | None, second: np.ndarray, labels: np.ndarray) -> float:
    """How likely `first` is the better of two models: by Bayes' rule from even odds, given held-out labels.

    Bayesian model averaging (Hoeting et al. 1999, equation 1) with the held-out likelihood; without rows, one half.

    Args:
        first: `[V, K]` probabilities; `None` for V = 0.
        second: `[V, K]`.
        labels: `[V]`.
    """
    if first is None or not len(labels):
        return 0.5
    return float(expit(len(labels) * (nll(second, labels) - nll(first, labels))))


def find_neighborhood(
    encoder: PreTrainedModel,
    labeled: Dataset,
    pool: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    num_classes: int,
    graph: bool,
    label_names: Sequence[str] | None = None,
    probe: bool = False,
    held_out: Dataset | None = None,
    seed: int,
    title: str | None = None,
) -> Neighborhood:
    """Embeds the labeled rows and the pool, and asks the neighbours and the classes' names.

    Args:
        encoder: with the backbone's own weights.
        labeled: tokenized rows with `labels`.
        pool: N tokenized rows.
        tokenizer: pads the batches.
        num_classes: K.
        graph: whether to spread labels over a nearest-neighbour graph.
        label_names: K names to be compared with the texts; `None` leaves them out.
        probe: whether logistic regression on the labeled rows is asked.
        held_out: V tokenized rows that the probe is asked of, too.
        seed: of the graph.
        title: beside the progress bars; `None` shows none.
    """
    known, unknown = (
        mean_embeddings(encoder, rows, tokenizer, progress=title and f"{title}: embedding {what}")
        for rows, what in ((labeled, "the labeled rows"), (pool, "the pool"))
    )
    labels = np.asarray(labeled["labels"][:])
    found = {"probs": None, "certainty": None, "trust": 0.0, "novel": novel_rows(known, unknown)}
    if graph:
        edges = knn_graph(np.concatenate([known, unknown]), seed=seed)
        seeds = np.concatenate([labels, np.full(len(unknown), -1)])
        spread = spread_labels(edges, seeds, num_classes)
        found |= {"probs": spread.probs[len(known) :], "certainty": spread.certainty[len(known) :]}
        found["trust"] = graph_trust(edges, seeds, num_classes).weight()
    if probe:
        weight, bias = logistic_weights(torch.from_numpy(known), torch.from_numpy(labels), num_classes)
        found["probe_probs"] = softmax(unknown @ weight.numpy().T + bias.numpy(), axis=1)
        if held_out is not None and len(held_out):
            others = mean_embeddings(encoder, held_out, tokenizer)
            found["probe_held_out"] = softmax(others @ weight.numpy().T + bias.numpy(), axis=1)
    texts = None if label_names is None else name_texts(label_names)
    if texts is not None:
        names = mean_embeddings(encoder, Dataset.from_dict(dict(tokenizer(texts, truncation=True))), tokenizer)
        prior = weigh_names(known, labels, unknown, names, seed=seed)
        found |= {"name_strength": prior.strength, "name_log_odds": prior.log_odds if prior.strength > 0 else None}
    return Neighborhood(**found)
