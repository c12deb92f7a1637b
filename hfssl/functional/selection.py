"""Selects the rows of the pool that get a pseudo-label. Pure functions of arrays and an explicit generator.

All strategies except `all` and `threshold` are *class-balanced*: of S requested rows, S/K are selected among the rows
predicted as each class (one more for the first S mod K classes). A class with fewer candidates contributes all of
them, and other classes do *not* fill the gap, since that would break the balance. So fewer than S rows may be
selected. No row is selected twice. (UST's code selects with replacement where a class has too few rows, so that a few
rows fill a rare class's quota.)
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
# [N], 0 where the prediction is certain. All except BALD, which UST uses in nats, are scaled to at most 1.
ACQUISITIONS: dict[str, Acquisition] = {
    "bald": lambda probs, variance, bald: bald,  # Houlsby et al. 2011
    "entropy": lambda probs, variance, bald: entr(probs).sum(axis=1) / np.log(probs.shape[1]),  # Shannon 1948
    "variance": lambda probs, variance, bald: 4 * variance,  # a probability's variance is at most 1/4
    "margin": lambda probs, variance, bald: 1 + np.diff(np.partition(probs, -2, axis=1)[:, :-3:-1], axis=1)[:, 0],
}


@dataclass(frozen=True)
class Candidates:
    """Holds the teacher's predictions for the pool; N rows, K classes."""

    predicted: np.ndarray  # [N] int, the class that would become the pseudo-label
    confidence: np.ndarray  # [N], probability of that class
    uncertainty: np.ndarray  # [N], by one of `ACQUISITIONS`
    num_classes: int  # K


def quotas(size: int, num_classes: int) -> np.ndarray:
    """Returns the rows per class, `[K]` int64 that sums to `size`: S/K, one more for the first S mod K classes."""
    share, rest = divmod(size, num_classes)
    return share + (np.arange(num_classes) < rest).astype(np.int64)


def class_balanced_selection(
    candidates: Candidates, probability: np.ndarray, size: int, generator: np.random.Generator
) -> np.ndarray:
    """Selects S/K rows of each class without replacement, with chances proportional to `probability`.

    Rows of probability 0 are selected, at random, only after all other rows of their class.

    Args:
        candidates (`Candidates`): Predictions for the pool.
        probability (`np.ndarray`): `[N]`, at least 0; the sum does not matter.
        size (`int`): Number of rows S to select.
        generator (`np.random.Generator`): Source of randomness; the same state gives the same rows.

    Returns:
        Row numbers, ascending int64, at most `size`.
    """
    # The smallest of Exp(1)/p are a sample without replacement with chances p (Efraimidis & Spirakis 2006); 1/0 = inf.
    with np.errstate(divide="ignore", over="ignore"):
        keys = generator.exponential(size=len(probability)) / np.asarray(probability, dtype=np.float64)
    return _smallest_of_each_class(candidates, keys, size, generator)


def _smallest_of_each_class(
    candidates: Candidates, keys: np.ndarray, size: int, generator: np.random.Generator
) -> np.ndarray:
    """Returns the rows with the smallest keys in each class, up to the class's quota; ties are broken at random."""
    order = np.lexsort((generator.random(len(keys)), keys))
    predicted = candidates.predicted[order]
    chosen = [order[predicted == k][:quota] for k, quota in enumerate(quotas(size, candidates.num_classes))]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def select_easy(candidates: Candidates, size: int, generator: np.random.Generator) -> np.ndarray:
    """Selects certain rows: p proportional to max(0, 1 - uncertainty) (UST's easy selection, with BALD)."""
    return class_balanced_selection(candidates, np.maximum(0.0, 1.0 - candidates.uncertainty), size, generator)


def select_hard(candidates: Candidates, size: int, generator: np.random.Generator) -> np.ndarray:
    """Selects uncertain rows: p proportional to max(0, uncertainty) (UST's hard selection, with BALD)."""
    return class_balanced_selection(candidates, np.maximum(0.0, candidates.uncertainty), size, generator)


def select_uniform(candidates: Candidates, size: int, generator: np.random.Generator) -> np.ndarray:
    """Selects rows at random within each class: plain self-training."""
    return class_balanced_selection(candidates, np.ones(len(candidates.predicted)), size, generator)


def select_top_k(candidates: Candidates, size: int, generator: np.random.Generator) -> np.ndarray:
    """Selects the S/K most confident rows of each class. Ties (common, as confidence rounds to 1) break at random."""
    return _smallest_of_each_class(candidates, -candidates.confidence, size, generator)


def select_threshold(
    candidates: Candidates, size: int, generator: np.random.Generator, threshold: float = 0.95
) -> np.ndarray:
    """Selects every row with confidence of at least `threshold` (Lee 2013; FixMatch); ignores `size` and balance."""
    return np.flatnonzero(candidates.confidence >= threshold)


def select_all(candidates: Candidates, size: int, generator: np.random.Generator) -> np.ndarray:
    """Selects every row; `size` and the generator are not used."""
    return np.arange(len(candidates.predicted))


SelectionStrategy = Callable[..., np.ndarray]  # (candidates, size, generator) -> row numbers

SELECTION_STRATEGIES: dict[str, SelectionStrategy] = {
    "easy": select_easy,
    "hard": select_hard,
    "uniform": select_uniform,
    "top_k": select_top_k,
    "threshold": select_threshold,
    "all": select_all,
}
