"""The contract of an embedding signal; the signals themselves are in `signals.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.embeddings import EmbeddedRows

__all__ = ["Signal", "SignalSettings"]


@dataclass(frozen=True)
class SignalSettings:
    """Holds the settings and functions from which signals are made.

    Attributes:
        args (`SelfTrainingConfig`): Settings of self-training.
        label_names (`Sequence[str]`): Names of the K classes.
        embed_texts (`Callable[[list[str]], np.ndarray]`): Function that embeds texts with the frozen encoder, to
            `[len(texts), D]`.
        seed (`int`): Random seed of the graph, the folds and the approximate searches.
        built (`dict[str, Signal]`): Signals that were built before, by name.
    """

    args: SelfTrainingConfig
    label_names: Sequence[str]
    embed_texts: Callable[[list[str]], np.ndarray]
    seed: int
    built: dict[str, Signal] = field(default_factory=dict)


class Signal:
    """Computes one property of the pool from embeddings. By default the methods after `compute` change nothing.

    Class attributes:
        name (`str`): Name of the signal in files.
        computed (`tuple[str, ...]`): Attributes that `compute` sets: arrays, floats or `None`. They are stored on
            disk.
        facts (`dict[str, str]`): Key in the record of a round -> attribute (a float) that is written there.
        votes (`bool`): Whether the signal predicts labels of its own, which are mixed with those of the teachers by
            weights that held-out labels decide (see `votes.py`).
        reads_upper_layers (`bool`): Whether `compute` needs the embeddings of upper layers before the last one.
    """

    name: ClassVar[str]
    computed: ClassVar[tuple[str, ...]]
    facts: ClassVar[dict[str, str]] = {}
    votes: ClassVar[bool] = False
    reads_upper_layers: ClassVar[bool] = False

    @staticmethod
    def wanted(args: SelfTrainingConfig) -> bool:
        """Returns whether the settings require this signal."""
        raise NotImplementedError("The signal does not define wanted().")  # abstract

    @classmethod
    def build(cls, settings: SignalSettings) -> Signal:
        """Returns the signal before its computation."""
        raise NotImplementedError(f"{cls.__name__} does not define build().")  # abstract

    def compute(self, labeled: EmbeddedRows, pool: EmbeddedRows, held_out: EmbeddedRows) -> None:
        """Computes the signal.

        Args:
            labeled (`EmbeddedRows`): L rows with labels.
            pool (`EmbeddedRows`): N rows.
            held_out (`EmbeddedRows`): V rows that no model is trained on; V may be 0.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define compute().")  # abstract

    def vote(self, teacher: np.ndarray) -> np.ndarray:
        """Returns the signal's own prediction for the pool, `[N, K]`, where it `votes`.

        Args:
            teacher (`np.ndarray`): Probabilities of a teacher, `[N, K]`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not vote.")  # only where `votes` is set

    def held_out_vote(self, teacher: np.ndarray) -> np.ndarray:
        """Returns the signal's own prediction for the held-out rows, `[V, K]`, where it `votes`.

        Args:
            teacher (`np.ndarray`): Probabilities of the teachers for the pool, `[N, K]`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not vote.")  # only where `votes` is set

    def adjust_teacher(self, probs: np.ndarray) -> np.ndarray:
        """Changes the probabilities of one of the first teachers, `[N, K]`, before the signals vote."""
        return probs

    def adjust_held_out(self, probs: np.ndarray) -> np.ndarray:
        """Changes the mean probabilities of the first teachers on held-out rows, `[V, K]`, in the same manner."""
        return probs

    def adjust_ensemble(self, probs: np.ndarray) -> np.ndarray:
        """Changes the mean of the first teachers' probabilities, `[N, K]`."""
        return probs

    def adjust_labels(self, probs: np.ndarray) -> np.ndarray:
        """Changes the ensemble's probabilities, `[N, K]`, in every round, before the distribution alignment."""
        return probs

    def weights(self, probs: np.ndarray) -> np.ndarray | None:
        """Returns factors `[N]` on the weights of pseudo-labels with probabilities `[N, K]`; `None` for no factors."""
        return None
