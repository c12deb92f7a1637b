"""Computes intervals and tests for the comparison of two models on the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, norm

__all__ = ["accuracy_interval", "disagreement", "paired_gain", "sign_test"]


def accuracy_interval(accuracy: float, rows: int) -> tuple[float, float]:
    """Returns the 95% interval of a proportion (Wilson 1927), which lies in `[0, 1]` and is valid for few rows."""
    z = 1.959964
    middle = (accuracy + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * math.sqrt(accuracy * (1 - accuracy) / rows + z**2 / (4 * rows**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def disagreement(predictions: Sequence[ArrayLike]) -> float | None:
    """Returns the share of rows on which two models differ, mean over all pairs; `None` for fewer than two models.

    The function needs no labels, and returns `None` for no rows, too. For models of different seeds with a calibrated
    ensemble, the disagreement estimates the error of one model (Jiang et al. 2022, "Assessing Generalization of SGD
    via Disagreement"); overconfident models disagree too little.

    Args:
        predictions (`Sequence[ArrayLike]`): Predicted class indices `[N]` of each model, rows in the same order.
    """
    arrays = [np.asarray(prediction) for prediction in predictions]
    if len(arrays) < 2 or not arrays[0].size:
        return None
    return float(np.mean([(a != b).mean() for a, b in combinations(arrays, 2)]))


def paired_gain(right_a: ArrayLike, right_b: ArrayLike, *, confidence: float = 0.95) -> tuple[float, float, float]:
    """Returns the gain in accuracy of b over a with its adjusted Wald interval (Agresti & Min 2005, "Wald+2").

    The interval is the normal one after half a row is added to each of the four outcomes: both models right, both
    wrong, only a right, only b right. On few rows its coverage is better than that of a bootstrap: where a and b agree
    on all of six rows, a bootstrap interval has length 0 (benchmarks/NOTES.md, 2026-11-29, second part).

    Args:
        right_a (`ArrayLike`): Whether model a is right, `[N]` bool, N at least 1.
        right_b (`ArrayLike`): Whether model b is right, rows in the same order.
        confidence (`float`, defaults to `0.95`): Coverage of the interval.

    Returns:
        `(gain, lower bound, upper bound)`, all in `[-1, 1]`; the gain is the plain difference of the accuracies.
    """
    a, b = _checked_rights(right_a, right_b)
    if a.size == 0:
        raise ValueError("Expected at least one row of right and wrong, got none.")
    if not 0 < confidence < 1:
        raise ValueError(f"Expected 0 < confidence < 1, got {confidence}.")
    lost, won, rows = int((a & ~b).sum()), int((b & ~a).sum()), a.size + 2
    middle = (won - lost) / rows
    half = norm.ppf((1 + confidence) / 2) * math.sqrt((won + lost + 1) / rows - middle**2) / math.sqrt(rows)
    return (won - lost) / a.size, float(max(-1.0, middle - half)), float(min(1.0, middle + half))


def sign_test(right_a: ArrayLike, right_b: ArrayLike) -> float:
    """Returns the p-value of McNemar's exact one-sided test (1947) that b is worse than a.

    The test uses only rows on which exactly one of the two is right. If both models are equally good, b is wrong on
    each of these rows with probability 1/2.

    Args:
        right_a (`ArrayLike`): Whether model a is right, `[N]` bool.
        right_b (`ArrayLike`): Whether model b is right, rows in the same order.

    Returns:
        The p-value in [0, 1]; 1 where the models differ on no row.
    """
    a, b = _checked_rights(right_a, right_b)
    differing = int((a != b).sum())
    return float(binomtest(int((a & ~b).sum()), differing, alternative="greater").pvalue) if differing else 1.0


def _checked_rights(right_a: ArrayLike, right_b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"Expected two equally long rows of right and wrong, got shapes {a.shape} and {b.shape}.")
    return a, b
