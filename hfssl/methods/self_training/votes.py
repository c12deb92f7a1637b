"""Votes: what each member of the ensemble says about labels that it has not seen, and the weights that follow.

The members are the teachers (together), and embedding signals that predict labels of their own. V rows, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import softmax

from hfssl.evaluation.temperature_scaling import fit_temperature
from hfssl.functional.stacking import stacking_weights

__all__ = ["PRIOR_ROWS", "TEACHERS", "Votes", "mixed"]

TEACHERS = "teachers"
"""Name of the member that is the mean of all teachers."""

# Pseudo-counts of the members in their mixture (benchmarks/NOTES.md, 2026-11-25).
PRIOR_ROWS: Mapping[str, float] = {TEACHERS: 6.0, "backbone_probe": 4.0, "neighbors": 1.0}


@dataclass(frozen=True)
class Votes:
    """Holds the predictions of each member for labeled rows that it has not learned from.

    Args:
        probs (`Mapping[str, np.ndarray]`): Member -> probabilities, `[V, K]`; V may be 0.
        labels (`np.ndarray`): Labels of these rows, `[V]`.

    Example:
        >>> import numpy as np
        >>> from hfssl.methods.self_training.votes import Votes
        >>> sure, unsure = np.array([[0.9, 0.1]] * 20), np.array([[0.5, 0.5]] * 20)
        >>> weights = Votes({"teachers": sure, "backbone_probe": unsure}, np.zeros(20, dtype=int)).weights
        >>> weights["teachers"] > 0.6
        True
    """

    probs: Mapping[str, np.ndarray]
    labels: np.ndarray

    @classmethod
    def none(cls, members: Sequence[str]) -> Votes:
        """Returns the votes on no rows, of which the weights are those of the prior."""
        return cls({name: np.zeros((0, 1)) for name in members}, np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: np.ndarray) -> Votes:
        """Returns the votes on some of the rows.

        Args:
            rows (`np.ndarray`): Row numbers, or `[V]` bool.
        """
        return Votes({name: probs[rows] for name, probs in self.probs.items()}, self.labels[rows])

    @cached_property
    def weights(self) -> dict[str, float]:
        """Returns the weight of each member in the mixture, with the sum 1.

        The mixture maximises the likelihood of the labels, with `PRIOR_ROWS` pseudo-counts (see `stacking_weights`).
        Bayesian model averaging is not suitable: it computes the probability that a member is the *best* one, which is
        too certain with few labels (benchmarks/NOTES.md, 2026-11-25). Each member gets its own temperature first: a
        model that was trained on few labels is overconfident, which does not make it wrong.
        """
        calibrated = np.stack(list(self.probs.values()))
        if len(self):
            scores = np.log(np.maximum(calibrated, 1e-12))
            calibrated = softmax([rows / fit_temperature(rows, self.labels) for rows in scores], axis=-1)
        prior = [PRIOR_ROWS.get(name, 1.0) for name in self.probs]
        return dict(zip(self.probs, stacking_weights(calibrated, self.labels, prior).tolist(), strict=True))

    @cached_property
    def temperature(self) -> float:
        """Returns the temperature of the mixture (see `fit_temperature`); 1 without rows."""
        scores = np.log(np.maximum(mixed(self.probs, self.weights), 1e-12))
        return fit_temperature(scores, self.labels) if len(self) else 1.0


def mixed(probs: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Returns the mixture of the members' probabilities, `[N, K]`, in the dtype of the teachers'.

    Args:
        probs (`Mapping[str, np.ndarray]`): Member -> probabilities, `[N, K]`, the teachers among them.
        weights (`Mapping[str, float]`): Member -> weight; the teachers get what the others leave, and a member that is
            not listed gets 0.
    """
    others = [name for name in probs if name != TEACHERS]
    found = (1 - sum(weights.get(name, 0.0) for name in others)) * probs[TEACHERS]
    for name in others:
        found = found + weights.get(name, 0.0) * probs[name]
    return found.astype(probs[TEACHERS].dtype)
