"""Measures calibration: expected calibration error, plain and debiased, and the bins of a reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "ReliabilityBin",
    "checked_probs_and_labels",
    "debiased_ece",
    "expected_calibration_error",
    "reliability_bins",
]

SUM_TOLERANCE = 1e-3  # sums of softmax rows in half precision differ from 1 by a few 1e-4


@dataclass(frozen=True)
class ReliabilityBin:
    """Describes the rows whose confidence (largest probability) lies in `(low, high]`. Empty bins have no means."""

    low: float
    high: float
    count: int
    confidence: float | None  # mean of the largest probability
    accuracy: float | None  # fraction of these rows that are right


def reliability_bins(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> list[ReliabilityBin]:
    """Sorts rows into bins of equal width by their confidence max_k p_k (Guo et al. 2017, section 2).

    Args:
        probs (`ArrayLike`): Class probabilities, shape `[N, K]`, rows sum to 1.
        labels (`ArrayLike`): True class indices, shape `[N]`.
        bins (`int`, defaults to `15`): Number of bins M; bin m is the half-open interval `((m - 1) / M, m / M]`.

    Returns:
        All M bins in order, including empty ones.
    """
    if bins < 1:
        raise ValueError(f"Expected at least one bin, got {bins}.")
    probs, labels = checked_probs_and_labels(probs, labels)
    confidence = probs.max(axis=1)
    right = probs.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    # A confidence above 1 due to rounding belongs to the last bin.
    index = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)
    result = []
    for m in range(bins):
        here = index == m
        count = int(here.sum())
        means = (float(confidence[here].mean()), float(right[here].mean())) if count else (None, None)
        result.append(ReliabilityBin(float(edges[m]), float(edges[m + 1]), count, *means))
    return result


def expected_calibration_error(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Returns ECE = sum over bins of (share of rows) * |accuracy - confidence| (Guo et al. 2017, equation 3).

    Args:
        probs (`ArrayLike`): Class probabilities, shape `[N, K]`, rows sum to 1.
        labels (`ArrayLike`): True class indices, shape `[N]`.
        bins (`int`, defaults to `15`): Number of equally wide bins.

    Returns:
        The error in `[0, 1]`; 0 means perfectly calibrated.
    """
    filled = [b for b in reliability_bins(probs, labels, bins) if b.count]
    total = sum(b.count for b in filled)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in filled) / total


def debiased_ece(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Returns the root of the debiased squared calibration error (Kumar et al. 2019, section 5).

    On few rows the plain error of a calibrated model is far above 0, because the accuracy of a bin differs by chance
    from its confidence. Here the estimated variance of the accuracy is taken off each squared gap: sum over bins of
    (share of rows) * ((confidence - accuracy)^2 - accuracy * (1 - accuracy) / (rows - 1)), the debiased estimator of
    "Verified Uncertainty Calibration". A negative sum counts as 0. The bins hold equally many rows by the confidence
    max_k p_k; rows with equal confidence are in one bin. A bin of one row has no estimated variance.

    Args:
        probs (`ArrayLike`): Class probabilities, shape `[N, K]`, rows sum to 1.
        labels (`ArrayLike`): True class indices, shape `[N]`.
        bins (`int`, defaults to `15`): Number of bins; at most N // 2, so that a bin has two rows.

    Returns:
        The error in `[0, 1]`; 0 where the gaps are no larger than chance makes them.

    Raises:
        ValueError: if there is no bin, or as in `checked_probs_and_labels`.

    Example:
        >>> from hfssl.metrics.calibration import debiased_ece
        >>> round(debiased_ece([[0.9, 0.1]] * 4, [0, 0, 1, 1]), 4)  # root of (0.9 - 0.5)^2 - 0.5 * 0.5 / 3
        0.2769
    """
    if bins < 1:
        raise ValueError(f"Expected at least one bin, got {bins}.")
    probs, labels = checked_probs_and_labels(probs, labels)
    confidence = probs.max(axis=1)
    right = (probs.argmax(axis=1) == labels).astype(np.float64)
    chunks = np.array_split(np.sort(confidence), max(1, min(bins, len(labels) // 2)))
    edges = [(lower[-1] + upper[0]) / 2 for lower, upper in zip(chunks, chunks[1:], strict=False)]
    index = np.searchsorted(edges, confidence, side="left")  # an edge between equal rows leaves all of them below it
    rows = np.bincount(index, minlength=len(chunks))
    filled = rows > 0
    rows, sums = rows[filled], [np.bincount(index, values, len(chunks))[filled] for values in (confidence, right)]
    mean_confidence, accuracy = sums[0] / rows, sums[1] / rows
    chance = accuracy * (1 - accuracy) / np.maximum(rows - 1, 1)
    squared = (rows * ((mean_confidence - accuracy) ** 2 - chance)).sum() / rows.sum()
    return float(np.sqrt(max(squared, 0.0)))


def checked_probs_and_labels(probs: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns `probs` as float64 `[N, K]` and `labels` as integers `[N]`.

    Raises:
        ValueError: if there are no rows, the shapes do not match, a row of `probs` is not a distribution, or a label
            is not a class index (unlabeled rows, -1, must be left out).
    """
    probs, labels = np.asarray(probs, dtype=np.float64), np.asarray(labels)
    if probs.ndim != 2 or labels.shape != probs.shape[:1] or labels.size == 0:
        raise ValueError(f"Expected probs [N, K] and labels [N] with N >= 1, got {probs.shape} and {labels.shape}.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"Expected integer class indices as labels, got {labels.dtype}.")
    if labels.min() < 0 or labels.max() >= probs.shape[1]:
        raise ValueError(
            f"Expected labels from 0 to {probs.shape[1] - 1}, got {labels.min()} to {labels.max()}: leave unlabeled "
            "rows (-1) out before evaluating."
        )
    is_distribution = (probs >= 0).all() and np.allclose(probs.sum(axis=1), 1.0, rtol=0, atol=SUM_TOLERANCE)
    if not is_distribution:
        raise ValueError("Expected rows of probabilities that sum to 1: apply a softmax to the logits first.")
    return probs, labels
