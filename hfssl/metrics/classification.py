"""How good predictions are: accuracy, macro-F1, negative log-likelihood, and the interval of a gain. Plain numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, norm

from hfssl.metrics.calibration import checked_probs_and_labels, expected_calibration_error

__all__ = [
    "ClassScores",
    "accuracy",
    "accuracy_interval",
    "class_scores",
    "confusion_matrix",
    "disagreement",
    "evaluate_probs",
    "macro_f1",
    "nll",
    "paired_gain",
    "sign_test",
]

SMALLEST_PROBABILITY = 1e-12  # a softmax in float32 can underflow to 0, and log(0) is neither a number nor JSON


@dataclass(frozen=True)
class ClassScores:
    """One-versus-rest scores of every class; each array has shape `[K]`, scores lie in `[0, 1]`."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray  # rows that truly are of the class
    predicted: np.ndarray  # rows predicted as the class


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Fraction of rows whose predicted class is the true one.

    Args:
        predictions: class indices, shape `[N]`.
        labels: true class indices, shape `[N]`, none of them -1.

    Raises:
        `ValueError`: if there are no rows, or the shapes differ, or a row has no label.
    """
    predictions, labels = _checked_pair(predictions, labels)
    return float(np.mean(predictions == labels))


def confusion_matrix(predictions: ArrayLike, labels: ArrayLike, num_classes: int) -> np.ndarray:
    """Counts of rows, shape `[K, K]`: row = true class, column = predicted class.

    Args:
        predictions: class indices below `num_classes`, shape `[N]`.
        labels: true class indices below `num_classes`, shape `[N]`.
        num_classes: K.
    """
    predictions, labels = _checked_pair(predictions, labels)
    highest = max(predictions.max(), labels.max())
    if highest >= num_classes:
        raise ValueError(f"Expected class indices below {num_classes}, got {highest}.")
    cells = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def class_scores(confusion: np.ndarray) -> ClassScores:
    """Precision, recall and F1 of each class from a confusion matrix `[K, K]`; 0 where a denominator is 0."""
    confusion = np.asarray(confusion)
    hits = np.diag(confusion).astype(np.float64)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)

    def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)

    return ClassScores(
        precision=ratio(hits, predicted),
        recall=ratio(hits, support),
        f1=ratio(2 * hits, support + predicted),
        support=support,
        predicted=predicted,
    )


def macro_f1(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Unweighted mean of the classes' F1 = 2 TP / (2 TP + FP + FN).

    As in scikit-learn, the mean runs over the classes that occur in `labels` or in `predictions`: a class that a small
    validation part happens to lack neither helps nor hurts.

    Args:
        predictions: class indices, shape `[N]`.
        labels: true class indices, shape `[N]`.
    """
    predictions, labels = _checked_pair(predictions, labels)
    num_classes = int(max(predictions.max(), labels.max())) + 1
    scores = class_scores(confusion_matrix(predictions, labels, num_classes))
    return float(np.mean(scores.f1[(scores.support + scores.predicted) > 0]))


def nll(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log-likelihood of the true class, in nats. Probabilities below 1e-12 count as 1e-12.

    Args:
        probs: class probabilities, shape `[N, K]`, rows sum to 1.
        labels: true class indices, shape `[N]`.
    """
    probs, labels = checked_probs_and_labels(probs, labels)
    of_truth = probs[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.clip(of_truth, SMALLEST_PROBABILITY, 1.0))))


def evaluate_probs(probs: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """The four numbers of every evaluation: `accuracy`, `macro_f1`, `ece` in `[0, 1]` and `nll` in nats.

    Args:
        probs: class probabilities, shape `[N, K]`, rows sum to 1.
        labels: true class indices, shape `[N]`, none of them -1.

    Raises:
        `ValueError`: if there are no rows, the shapes do not fit, or these are not probabilities and class indices.
    """
    probs, labels = checked_probs_and_labels(probs, labels)
    predictions = probs.argmax(axis=1)
    return {
        "accuracy": accuracy(predictions, labels),
        "macro_f1": macro_f1(predictions, labels),
        "nll": nll(probs, labels),
        "ece": expected_calibration_error(probs, labels),
    }


def accuracy_interval(accuracy: float, rows: int) -> tuple[float, float]:
    """95% interval of a proportion (Wilson 1927); stays within `[0, 1]` and is usable for few rows."""
    z = 1.959964
    middle = (accuracy + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * math.sqrt(accuracy * (1 - accuracy) / rows + z**2 / (4 * rows**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def disagreement(predictions: Sequence[ArrayLike]) -> float | None:
    """Share of rows on which two models differ, mean over all pairs; `None` for fewer than two models or no rows.

    Needs no labels. For models of different seeds whose ensemble is calibrated it estimates the error of one of them
    (Jiang et al. 2022, "Assessing Generalization of SGD via Disagreement"); overconfident ones disagree too little.

    Args:
        predictions: class indices `[N]` of each model, rows in the same order.
    """
    arrays = [np.asarray(prediction) for prediction in predictions]
    if len(arrays) < 2 or not arrays[0].size:
        return None
    return float(np.mean([(a != b).mean() for a, b in combinations(arrays, 2)]))


def paired_gain(right_a: ArrayLike, right_b: ArrayLike, *, confidence: float = 0.95) -> tuple[float, float, float]:
    """Gain in accuracy of b over a on the same rows, with its adjusted Wald interval (Agresti & Min 2005, "Wald+2").

    The interval is the normal one after half a row has been added to each of the four outcomes: both right, both
    wrong, only a, only b. Of few rows a bootstrap knows too little: where a and b agree on all of six rows, it is sure
    that they always will. Where models differ on 10 to 40 % of all rows, and gain -5 to 8 points, its 95% intervals
    hold the true gain in 66, 77, 88 and 92 of 100 draws of 6, 9, 18 and 32 rows, and these in 99, 98, 97 and 96
    (benchmarks/NOTES.md, 2026-11-29, second part).

    Args:
        right_a: whether model a is right, `[N]` bool, N at least 1.
        right_b: whether model b is right, rows in the same order.
        confidence: coverage of the interval, default `0.95`.

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
    """How likely b would lose to a on so many rows by chance: the exact test of McNemar (1947), one-sided.

    Only rows on which one of the two is right and the other wrong count; if both were equally good, each such row
    would be b's loss with probability 1/2.

    Args:
        right_a: whether model a is right, `[N]` bool.
        right_b: whether model b is right, rows in the same order.

    Returns:
        A p-value; 1 where the two differ on no row.
    """
    a, b = _checked_rights(right_a, right_b)
    differing = int((a != b).sum())
    return float(binomtest(int((a & ~b).sum()), differing, alternative="greater").pvalue) if differing else 1.0


def _checked_rights(right_a: ArrayLike, right_b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"Expected two equally long rows of right and wrong, got shapes {a.shape} and {b.shape}.")
    return a, b


def _checked_pair(predictions: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.ndim != 1 or predictions.shape != labels.shape or labels.size == 0:
        raise ValueError(
            f"Expected equally many predictions and labels, at least one, got shapes {predictions.shape} and "
            f"{labels.shape}."
        )
    if not (np.issubdtype(predictions.dtype, np.integer) and np.issubdtype(labels.dtype, np.integer)):
        raise ValueError(f"Expected integer class indices, got {predictions.dtype} and {labels.dtype}.")
    if min(predictions.min(), labels.min()) < 0:
        raise ValueError("Expected class indices from 0 up: leave unlabeled rows (-1) out before evaluating.")
    return predictions, labels
