"""Class shares: those a model was trained on, those of the rows that it labels, and how to go from one to the other.

A classifier that was trained on as many labels of each class expects the classes evenly, and says so: where the pool
holds a class rarely, it finds too many of it. Pure functions of arrays; N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["ALIGNMENTS", "adjust_to_prior", "align_to_prior", "class_shares", "estimate_prior"]


def class_shares(labels: ArrayLike, num_classes: int) -> np.ndarray:
    """Share of each class among labels, with one row of pseudo-count spread over all: no share is 0.

    Args:
        labels: `[N]` class numbers; -1 (unlabeled) is left out.
        num_classes: K.

    Returns:
        `[K]` float64 that sums to 1.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels[labels >= 0], minlength=num_classes) + 1 / num_classes
    return counts / counts.sum()


def adjust_to_prior(probs: ArrayLike, prior: ArrayLike, target: ArrayLike) -> np.ndarray:
    """Posteriors under other class shares: p(k|x) * target_k / prior_k, normalised (Saerens et al. 2002, eq. 2.4).

    Args:
        probs: `[N, K]`, posteriors of a model that was trained on rows with shares `prior`.
        prior: `[K]`, all positive.
        target: `[K]`, shares of the rows at hand.

    Returns:
        `[N, K]` in the dtype of `probs`.
    """
    probs = np.asarray(probs)
    adjusted = probs * (np.asarray(target, np.float64) / np.asarray(prior, np.float64))
    return (adjusted / adjusted.sum(axis=1, keepdims=True)).astype(probs.dtype)


def estimate_prior(
    probs: ArrayLike, prior: ArrayLike, *, max_iterations: int = 1000, tolerance: float = 1e-6
) -> np.ndarray:
    """Class shares of unlabeled rows, by expectation maximisation (Saerens, Latinne & Decaestecker 2002, eq. 2.9).

    Maximises the likelihood of the rows over the shares, given that `probs` are right about everything but the shares.
    A model that is unsure without reason (a temperature above 1) breaks that condition, and rare classes then die out.

    Args:
        probs: `[N, K]`, posteriors of a model that was trained on rows with shares `prior`.
        prior: `[K]`, all positive; the estimate starts here and is this for N = 0.
        max_iterations: most iterations.
        tolerance: stop when no share changes by more.

    Returns:
        `[K]` float64 that sums to 1.

    Raises:
        ValueError: if a share in `prior` is not positive.
    """
    probs, prior = np.asarray(probs, np.float64), np.asarray(prior, np.float64)
    if not (prior > 0).all():
        raise ValueError(f"Expected positive class shares, got {prior.tolist()}.")
    estimate = prior / prior.sum()
    if not len(probs):
        return estimate
    likelihood = probs / prior  # p(x|k), up to a factor that each row has for itself
    for _ in range(max_iterations):
        joint = likelihood * estimate
        fresh = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
        change, estimate = np.abs(fresh - estimate).max(), fresh
        if change <= tolerance:
            break
    return estimate


def align_to_prior(probs: ArrayLike, target: ArrayLike) -> np.ndarray:
    """Distribution alignment (Berthelot et al. 2020, "ReMixMatch", section 3.1): p * target / mean(p), normalised.

    Args:
        probs: `[N, K]`.
        target: `[K]`, the shares that the rows are believed to have.

    Returns:
        `[N, K]` in the dtype of `probs`. A class that no row gives any probability stays at 0.
    """
    probs = np.asarray(probs)
    mean = probs.mean(axis=0, dtype=np.float64)
    return adjust_to_prior(probs, np.where(mean > 0, mean, 1.0), target)


# From probs [N, K] and the class shares [K] that the model was trained on, and those of the labels, to probs [N, K].
ALIGNMENTS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "none": lambda probs, prior, labeled: probs,
    "estimated": lambda probs, prior, labeled: adjust_to_prior(probs, prior, estimate_prior(probs, prior)),
    "labeled": lambda probs, prior, labeled: align_to_prior(probs, labeled),
}
