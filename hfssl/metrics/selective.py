"""Selective prediction: how right a model is on the rows of which it is sure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["THRESHOLDS", "coverage_table"]

THRESHOLDS = (0.99, 0.95, 0.9, 0.8, 0.7, 0.5)


def coverage_table(
    confidence: ArrayLike, right: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> list[dict[str, float | int | None]]:
    """Returns for each threshold the rows with at least that confidence, and how many of them are right.

    Args:
        confidence (`ArrayLike`): Largest probability of each row, `[N]`, N at least 1.
        right (`ArrayLike`): Whether the prediction is right, `[N]` bool.
        thresholds (`Sequence[float]`, defaults to `THRESHOLDS`): Smallest confidences, in `[0, 1]`.

    Returns:
        One `{"threshold", "rows", "share", "accuracy"}` for each threshold; `accuracy` is `None` without rows.

    Example:
        >>> from hfssl.metrics.selective import coverage_table
        >>> coverage_table([0.9, 0.6], [True, False], [0.8])
        [{'threshold': 0.8, 'rows': 1, 'share': 0.5, 'accuracy': 1.0}]
    """
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
    if confidence.ndim != 1 or confidence.shape != right.shape or not len(right):
        raise ValueError(f"Expected two arrays [N] with N > 0, got shapes {confidence.shape} and {right.shape}.")
    table: list[dict[str, float | int | None]] = []
    for threshold in thresholds:
        sure = confidence >= threshold
        accuracy = float(right[sure].mean()) if sure.any() else None
        table.append(
            {"threshold": threshold, "rows": int(sure.sum()), "share": float(sure.mean()), "accuracy": accuracy}
        )
    return table
