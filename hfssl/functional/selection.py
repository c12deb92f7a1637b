"""Which rows of the pool get a pseudo-label this round. Pure functions of arrays and an explicit generator.

All draws but `all` and `threshold` are *class-balanced*: of S rows asked for, each class gives S/K of those predicted
as it (the first S mod K classes give one more). A class with fewer candidates gives what it has, and what it lacks is
*not* made up by other classes: the balance is the point of the draw. So fewer than S rows may come back. No row comes
back twice (UST's code draws with replacement where a class is short: a few rows then fill a rare class's whole quota).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import entr

__all__ = [
    "ACQUISITIONS",
    "SELECTION_STRATEGIES",
    "Candidates",
    "class_balanced_selection",
    "quotas",
    "select_all",
    "select_easy",
    "select_hard",
    "select_threshold",
    "select_top_k",
    "select_uniform",
]


Acquisition = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

# From probs [N, K] (mean over the passes), variance [N] of the predicted class and bald [N] in nats to uncertainty
# [N], 0 where all is clear. All but BALD, which UST takes in nats, are scaled to at most 1.
ACQUISITIONS: dict[str, Acquisition] = {
    "bald": lambda probs, variance, bald: bald,  # Houlsby et al. 2011
    "entropy": lambda probs, variance, bald: entr(probs).sum(axis=1) / np.log(probs.shape[1]),  # Shannon 1948
    "variance": lambda probs, variance, bald: 4 * variance,  # a probability's variance is at most 1/4
    "margin": lambda probs, variance, bald: 1 + np.diff(np.partition(probs, -2, axis=1)[:, :-3:-1], axis=1)[:, 0],
}


@dataclass(frozen=True)
class Candidates:
    """The pool as the teacher sees it; N rows, K classes."""

    predicted: np.ndarray  # [N] int, the class that would become the pseudo-label
    confidence: np.ndarray  # [N], probability of that class
    uncertainty: np.ndarray  # [N], by one of `ACQUISITIONS`
    num_classes: int  # K


def quotas(size: int, num_classes: int) -> np.ndarray:
    """`[K]` int64 that sums to `size`: S/K a class, one more for the first S mod K classes."""
    share, rest = divmod(size, num_classes)
    return share + (np.arange(num_classes) < rest).astype(np.int64)


def class_balanced_selection(
    candidates: Candidates, probability: np.ndarray, size: int, generator: np.random.Generator
) -> np.ndarray:
    """Per class, draws S/K rows without replacement with chances proportional to `probability`.

    Rows of probability 0 are drawn, at random, only after all others of their class are gone.

    Args:
        candidates (`Candidates`): the pool.
        probability (`np.ndarray`): `[N]`, not negative, need not sum to 1.
        size (`int`): S, rows wanted in all.
        generator (`np.random.Generator`): drawn from; the same state gives the same rows.

    Returns:
        Row numbers, ascending int64, at most `size`.
    """
    # The smallest of Exp(1)/p are a draw without replacement with chances p (Efraimidis & Spirakis 2006); 1/0 = inf.
    with np.errstate(divide="ignore", over="ignore"):
        keys = generator.exponential(size=len(probability)) / np.asarray(probability, dtype=np.float64)
    return _smallest_of_each_class(candidates, keys, size, generator)


def _smallest_of_each_class(
    candidates: Candidates, keys: np.ndarray, size: int, generator: np.random.Generator
) -> np.ndarray:
    """The rows with the smallest keys in each class, up to the class's quota; ties are broken at random."""
    order = np.lexsort((generator.random(len(keys)), keys))
    predicted = candidates.predicted[order]
    chosen = [order[predicted == k][:quota] for k, quota in enumerate(quotas(size, candidates.num_classes))]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def select_easy(candidates: Candidates, size: int, generator: np.random.Generator) -> np.ndarray:
    """Rows that the teacher is sure of: p proportional to max(0, 1 - uncertainty) (UST's easy draw, there of BALD)."""
    return class_balanced_selection(candidates, np.maximum(0.0, 1.0 - candidates.uncertainty), size, generator)


def select_hard(candidates: Candidates, size: int, generator: np.random.Generator) -> np.ndarray:
    """Rows that the teacher is unsure of: p proportional to max(0, uncertainty) (UST's hard draw, there of BALD)."""
    return class_balanced_selection(candidates, np.maximum(0.0, candidates.uncertainty), size, generator)


def select_uniform(candidates: Candidates, size: int, generator: np.random.Generator) -> np.ndarray:
    """Rows at random within each class: plain self-training."""
    return class_balanced_selection(candidates, np.ones(len(candidates.predicted)), size, generator)


def select_top_k(candidates: Candidates, size: int, generator: np.random.Generator) -> np.ndarray:
    """The S/K most confident rows of each class. The generator breaks ties, common where confidence is a rounded 1."""
    return _smallest_of_each_class(candidates, -candidates.confidence, size, generator)


def select_threshold(
    candidates: Candidates, size: int, generator: np.random.Generator, threshold: float = 0.95
) -> np.ndarray:
    """Every row with confidence of at least `threshold` (Lee 2013; FixMatch); not balanced, not bounded by `size`."""
    return np.flatnonzero(candidates.confidence >= threshold)


def select_all(candidates: Candidates, size: int, generator: np.random.Generator) -> np.ndarray:
    """Every row; `size` and the generator are not used."""
    return np.arange(len(candidates.predicted))


SelectionStrategy = Callable[..., np.ndarray]  # of candidates, size and generator

SELECTION_STRATEGIES: dict[str, SelectionStrategy] = {
    "easy": select_easy,
    "hard": select_hard,
    "uniform": select_uniform,
    "top_k": select_top_k,
    "threshold": select_threshold,
    "all": select_all,
}
