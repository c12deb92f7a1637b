"""Embedding signals: properties of the pool in the embeddings of the untrained backbone.

Signals use the backbone's embeddings and not the teacher's. In the teacher's space each labeled row is close to its
class, because the teacher was trained on it; neither the trust in the graph and in the class names nor the p-values of
the out-of-distribution test could be measured on these rows.

A signal is a small class (see `Signal`): `compute` reads embeddings, and a few methods define the effect on the labels
of the pool. A new signal is one such class and one entry of `SIGNALS`. N rows of the pool, L labeled rows, V held-out
rows, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from hfssl.evaluation.out_of_distribution import is_ood, ood_rows
from hfssl.functional.label_spreading import agreement_weights, graph_trust, knn_graph, spread_labels
from hfssl.functional.nearest_neighbors import nearest_neighbors
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.embeddings import EmbeddedRows
from hfssl.methods.self_training.frozen_encoder.label_names import multiplied, name_texts, weigh_names
from hfssl.methods.self_training.frozen_encoder.layer_probe import fit_layer_probe
from hfssl.methods.self_training.frozen_encoder.signal_base import Signal, SignalSettings
from hfssl.methods.self_training.votes import TEACHERS

__all__ = [
    "SIGNALS",
    "BackboneProbe",
    "ClassNames",
    "EmbeddingSignals",
    "Graph",
    "Neighbors",
    "OutOfDistribution",
    "Smoothing",
    "signal_facts",
]

NEIGHBORS = 10  # number of neighbours of each row (benchmarks/NOTES.md, 2026-11-25, fourth part)


class OutOfDistribution(Signal):
    """Finds rows unlike all labeled ones, by a conformal test on the distance to the nearest labeled row.

    Args:
        active (`bool`): Whether these rows lose their weight where the pool holds many of them.
    """

    name, computed, facts = "out_of_distribution", ("rows",), {"ood_fraction": "fraction"}

    def __init__(self, active: bool):
        self.active = active

    @staticmethod
    def wanted(args: SelfTrainingConfig) -> bool:
        return args.ood_filter

    @classmethod
    def build(cls, settings: SignalSettings) -> OutOfDistribution:
        return cls(settings.args.ood_filter)

    def compute(self, labeled: EmbeddedRows, pool: EmbeddedRows, held_out: EmbeddedRows) -> None:
        """Sets `rows`, `[N]` bool."""
        self.rows = ood_rows(labeled.last, pool.last)

    @property
    def fraction(self) -> float:
        """Returns the fraction of the pool that is out of distribution, in [0, 1]; 0.05 is usual."""
        return float(self.rows.mean())

    @property
    def alarming(self) -> bool:
        """Returns whether so many rows are out of distribution that the pool itself is doubtful."""
        return is_ood(self.rows)

    def weights(self, probs: np.ndarray) -> np.ndarray | None:
        """Returns factors of 0 for the rows out of distribution, where they are many but not all."""
        return ~self.rows if self.active and self.alarming and not self.rows.all() else None


class Graph(Signal):
    """Spreads labels over a nearest-neighbour graph of the labeled rows and the pool.

    Args:
        mode (`str`): Use of the spread labels: `"agreement"` weights rows by their agreement with the graph,
            `"certainty"` by the graph's certainty, and `"labels"` mixes the spread labels in; each in proportion to
            the trust in the graph.
        num_classes (`int`): Number K of classes.
        seed (`int`): Random seed of the approximate search of neighbours.
    """

    name, computed, facts = "graph", ("probs", "certainty", "trust"), {"graph_trust": "trust"}

    def __init__(self, mode: str, num_classes: int, seed: int):
        self.mode, self.num_classes, self.seed = mode, num_classes, seed

    @staticmethod
    def wanted(args: SelfTrainingConfig) -> bool:
        return args.label_spreading != "none"

    @classmethod
    def build(cls, settings: SignalSettings) -> Graph:
        return cls(settings.args.label_spreading, len(settings.label_names), settings.seed)

    def compute(self, labeled: EmbeddedRows, pool: EmbeddedRows, held_out: EmbeddedRows) -> None:
        """Sets `probs` `[N, K]`, `certainty` `[N]` in [0, 1] and `trust`, in [0, 1], measured on the labeled rows."""
        edges = knn_graph(np.concatenate([labeled.last, pool.last]), seed=self.seed)
        seeds = np.concatenate([labeled.labels, np.full(len(pool), -1)])
        spread = spread_labels(edges, seeds, self.num_classes)
        self.probs, self.certainty = spread.probs[len(labeled) :], spread.certainty[len(labeled) :]
        self.trust = graph_trust(edges, seeds, self.num_classes).weight()

    def adjust_labels(self, probs: np.ndarray) -> np.ndarray:
        """Mixes the spread labels in, with the trust as their weight."""
        if self.mode != "labels":
            return probs
        return (1 - self.trust) * probs + self.trust * self.probs.astype(probs.dtype)

    def weights(self, probs: np.ndarray) -> np.ndarray | None:
        """Returns factors between 1 - trust and 1."""
        if self.mode == "agreement":
            return agreement_weights(probs, self.probs, self.trust)
        return (1 - self.trust) + self.trust * self.certainty if self.mode == "certainty" else None


class ClassNames(Signal):
    """Measures the similarity of each text to the name of each class (zero-shot classification; see `label_names`).

    Args:
        label_names (`Sequence[str]`): Names of the K classes.
        embed_texts (`Callable[[list[str]], np.ndarray]`): Function that embeds texts with the frozen encoder, to `[K,
            D]`.
        seed (`int`): Random seed of the folds that select the strength.
        in_teachers (`bool`, defaults to `True`): Whether the names change the teachers' predictions. With a probe of
            the backbone they do not: their strength was fitted in addition to such a probe, which they change instead.
    """

    name, computed = "class_names", ("strength", "log_odds", "held_out_log_odds")
    facts: ClassVar[dict[str, str]] = {"label_name_strength": "strength"}

    def __init__(self, label_names: Sequence[str], embed_texts: Callable, seed: int, *, in_teachers: bool = True):
        self.label_names, self.embed_texts, self.seed, self.in_teachers = label_names, embed_texts, seed, in_teachers

    @staticmethod
    def wanted(args: SelfTrainingConfig) -> bool:
        return args.label_name_prior

    @classmethod
    def build(cls, settings: SignalSettings) -> ClassNames:
        in_teachers = not BackboneProbe.wanted(settings.args)
        return cls(settings.label_names, settings.embed_texts, settings.seed, in_teachers=in_teachers)

    def compute(self, labeled: EmbeddedRows, pool: EmbeddedRows, held_out: EmbeddedRows) -> None:
        """Sets `strength` and the `log_odds` of pool and held-out rows; without trust in the names 0 and `None`."""
        self.strength, self.log_odds, self.held_out_log_odds = 0.0, None, None
        texts = name_texts(self.label_names)
        if texts is None:
            return
        names = self.embed_texts(texts)
        prior = weigh_names(labeled.last, labeled.labels, pool.last, names, held_out.last, seed=self.seed)
        if prior.strength > 0:
            self.strength, self.log_odds, self.held_out_log_odds = prior.strength, prior.log_odds, prior.held_out

    def adjust_teacher(self, probs: np.ndarray) -> np.ndarray:
        """Multiplies the probabilities by the odds of the names."""
        return multiplied(probs, self.log_odds) if self.in_teachers and self.log_odds is not None else probs

    def adjust_held_out(self, probs: np.ndarray) -> np.ndarray:
        """Multiplies the probabilities by the odds of the names."""
        log_odds = self.held_out_log_odds
        return multiplied(probs, log_odds) if self.in_teachers and log_odds is not None else probs


class Smoothing(Signal):
    """Mixes the labels of the nearest neighbours of each row in the pool into its own, with a fixed weight.

    Args:
        share (`float`): Weight of the neighbours' mean in a row's label, in [0, 1).
        seed (`int`): Random seed of the approximate search.
    """

    name, computed = "smoothing", ("rows",)

    def __init__(self, share: float, seed: int):
        self.share, self.seed = share, seed

    @staticmethod
    def wanted(args: SelfTrainingConfig) -> bool:
        return args.knn_smoothing > 0

    @classmethod
    def build(cls, settings: SignalSettings) -> Smoothing:
        return cls(settings.args.knn_smoothing, settings.seed)

    def compute(self, labeled: EmbeddedRows, pool: EmbeddedRows, held_out: EmbeddedRows) -> None:
        """Sets `rows`, `[N, k]` row numbers; `None` for a pool of one row."""
        self.rows = nearest_neighbors(pool.last, NEIGHBORS, seed=self.seed)[0] if len(pool) > 1 else None

    def adjust_ensemble(self, probs: np.ndarray) -> np.ndarray:
        """Takes one step of label spreading (Zhou et al. 2004, section 2), k neighbours with equal weights.

        The step starts from labels of all rows. Spreading until convergence would find topics and not classes
        (benchmarks/NOTES.md, 2026-11-25).
        """
        if self.rows is None:
            return probs
        return ((1 - self.share) * probs + self.share * probs[self.rows].mean(axis=1)).astype(probs.dtype)


class BackboneProbe(Signal):
    """Fits logistic regression to the labeled rows' embeddings by several layers (see `layer_probe`).

    Args:
        num_classes (`int`): Number K of classes.
        seed (`int`): Random seed of the folds that weight the layers.
        names (`ClassNames`, *optional*): Class names, computed before; their odds are multiplied into the probe's
            probabilities.
    """

    name, computed, votes = "backbone_probe", ("probs", "held_out_probs"), True
    reads_upper_layers = True

    def __init__(self, num_classes: int, seed: int, names: ClassNames | None = None):
        self.num_classes, self.seed, self.names = num_classes, seed, names

    @staticmethod
    def wanted(args: SelfTrainingConfig) -> bool:
        return args.backbone_probe

    @classmethod
    def build(cls, settings: SignalSettings) -> BackboneProbe:
        return cls(len(settings.label_names), settings.seed, settings.built.get(ClassNames.name))

    def compute(self, labeled: EmbeddedRows, pool: EmbeddedRows, held_out: EmbeddedRows) -> None:
        """Sets `probs` `[N, K]` and `held_out_probs` `[V, K]`."""
        probe = fit_layer_probe(labeled.layers, labeled.labels, self.num_classes, seed=self.seed)
        self.probs, self.held_out_probs = probe.probs(pool.layers), probe.probs(held_out.layers)
        if self.names is not None and self.names.log_odds is not None:
            self.probs = multiplied(self.probs, self.names.log_odds)
            self.held_out_probs = multiplied(self.held_out_probs, self.names.held_out_log_odds)

    def vote(self, teacher: np.ndarray) -> np.ndarray:
        """Returns the probe's probabilities."""
        return self.probs

    def held_out_vote(self, teacher: np.ndarray) -> np.ndarray:
        """Returns the probe's probabilities."""
        return self.held_out_probs


class Neighbors(Signal):
    """Predicts a row's label as the teachers predict its nearest neighbours in the pool, on average.

    Args:
        seed (`int`): Random seed of the approximate search.
    """

    name, computed, votes = "neighbors", ("rows", "held_out_rows"), True

    def __init__(self, seed: int):
        self.seed = seed

    @staticmethod
    def wanted(args: SelfTrainingConfig) -> bool:
        return args.neighbor_votes

    @classmethod
    def build(cls, settings: SignalSettings) -> Neighbors:
        return cls(settings.seed)

    def compute(self, labeled: EmbeddedRows, pool: EmbeddedRows, held_out: EmbeddedRows) -> None:
        """Sets `rows` `[N, k]` and `held_out_rows` `[V, k]`, row numbers of the pool.

        In a pool of one row, `rows` is `None`, and that row is the neighbour of each held-out row.
        """
        self.rows = nearest_neighbors(pool.last, NEIGHBORS, seed=self.seed)[0] if len(pool) > 1 else None
        nearest = np.argsort(-(held_out.last @ pool.last.T), axis=1, kind="stable")
        self.held_out_rows = nearest[:, : 1 if self.rows is None else self.rows.shape[1]]

    def vote(self, teacher: np.ndarray) -> np.ndarray:
        """Returns the mean of the neighbours' probabilities."""
        return teacher if self.rows is None else teacher[self.rows].mean(axis=1)

    def held_out_vote(self, teacher: np.ndarray) -> np.ndarray:
        """Returns the mean of the neighbours' probabilities."""
        return teacher[self.held_out_rows].mean(axis=1)


# In the order in which they are computed and applied: the probe reads the class names.
SIGNALS: tuple[type[Signal], ...] = (OutOfDistribution, Graph, ClassNames, Smoothing, BackboneProbe, Neighbors)


class EmbeddingSignals:
    """Applies the signals of one pool, one after the other.

    Args:
        signals (`Sequence[Signal]`): Signals in the order of `SIGNALS`.
    """

    def __init__(self, signals: Sequence[Signal]):
        self.signals = {signal.name: signal for signal in signals}

    @classmethod
    def build(
        cls,
        args: SelfTrainingConfig,
        label_names: Sequence[str],
        embed_texts: Callable[[list[str]], np.ndarray],
        seed: int,
    ) -> EmbeddingSignals | None:
        """Returns the signals that the settings require, before their computation; `None` where they require none.

        Args:
            args (`SelfTrainingConfig`): Settings of self-training.
            label_names (`Sequence[str]`): Names of the K classes.
            embed_texts (`Callable[[list[str]], np.ndarray]`): Function that embeds texts with the frozen encoder, to
                `[len(texts), D]`.
            seed (`int`): Random seed of the graph, the folds and the approximate searches.
        """
        if not any(kind.wanted(args) for kind in SIGNALS):
            return None
        settings = SignalSettings(args, label_names, embed_texts, seed)
        for kind in SIGNALS:
            # The test of embedded rows costs nothing, and a pool out of distribution deserves a warning in any case.
            if kind.wanted(args) or kind is OutOfDistribution:
                settings.built[kind.name] = kind.build(settings)
        return cls(list(settings.built.values()))

    def __iter__(self) -> Iterator[Signal]:
        return iter(self.signals.values())

    def __getitem__(self, name: str) -> Signal:
        return self.signals[name]

    def compute(self, labeled: EmbeddedRows, pool: EmbeddedRows, held_out: EmbeddedRows) -> None:
        """Computes all signals, in order."""
        for signal in self:
            signal.compute(labeled, pool, held_out)

    def state_dict(self) -> dict[str, np.ndarray | float | None]:
        """Returns the computed values, as `"signal.attribute"` -> value."""
        return {f"{signal.name}.{key}": getattr(signal, key) for signal in self for key in signal.computed}

    def load_state_dict(self, state: Mapping[str, np.ndarray | float | None]) -> None:
        """Restores computed values; a missing value is `None`, and an array without a shape is a float."""
        for signal in self:
            for key in signal.computed:
                value = state.get(f"{signal.name}.{key}")
                is_number = value is not None and np.ndim(value) == 0
                setattr(signal, key, float(value) if is_number else value)

    @property
    def members(self) -> list[str]:
        """Returns the names of the members of the ensemble: the teachers, and each signal that votes."""
        return [TEACHERS, *(signal.name for signal in self if signal.votes)]

    def votes(self, teacher: np.ndarray) -> dict[str, np.ndarray]:
        """Returns member -> its prediction for the pool, `[N, K]`, given one of the first teachers.

        Args:
            teacher (`np.ndarray`): Probabilities of this teacher, `[N, K]`.
        """
        for signal in self:
            teacher = signal.adjust_teacher(teacher)
        return {TEACHERS: teacher} | {signal.name: signal.vote(teacher) for signal in self if signal.votes}

    def held_out_votes(self, teachers: np.ndarray, in_pool: np.ndarray) -> dict[str, np.ndarray]:
        """Returns member -> its prediction for the held-out rows, `[V, K]`.

        Args:
            teachers (`np.ndarray`): Mean of the first teachers' probabilities for the held-out rows, `[V, K]`.
            in_pool (`np.ndarray`): The same for the pool, `[N, K]`.
        """
        for signal in self:
            teachers, in_pool = signal.adjust_held_out(teachers), signal.adjust_teacher(in_pool)
        return {TEACHERS: teachers} | {signal.name: signal.held_out_vote(in_pool) for signal in self if signal.votes}

    def adjust_ensemble(self, probs: np.ndarray) -> np.ndarray:
        """Applies `Signal.adjust_ensemble` of all signals."""
        for signal in self:
            probs = signal.adjust_ensemble(probs)
        return probs

    def adjust_labels(self, probs: np.ndarray) -> np.ndarray:
        """Applies `Signal.adjust_labels` of all signals."""
        for signal in self:
            probs = signal.adjust_labels(probs)
        return probs

    def weights(self, probs: np.ndarray) -> np.ndarray:
        """Returns the product of the factors of all signals, `[N]` float64."""
        factors = np.ones(len(probs))
        for found in (signal.weights(probs) for signal in self):
            if found is not None:
                factors *= found
        return factors

    @property
    def out_of_distribution(self) -> OutOfDistribution:
        """Returns the signal that is always computed."""
        return self.signals[OutOfDistribution.name]


def signal_facts(signals: EmbeddingSignals | None) -> dict[str, float | None]:
    """Returns the entries of the signals in the record of a round; `None` for those that were not computed."""
    found: dict[str, float | None] = dict.fromkeys(key for kind in SIGNALS for key in kind.facts)
    for signal in signals or ():
        found |= {key: getattr(signal, attribute) for key, attribute in signal.facts.items()}
    return found
