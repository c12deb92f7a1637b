"""Measures predictions: accuracy, macro-F1, negative log-likelihood, confusion matrix. Plain numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hfssl.metrics.calibration import checked_probs_and_labels, expected_calibration_error

__all__ = [
    "ClassScores",
    "accuracy",
    "class_scores",
    "confusion_matrix",
    "evaluate_probs",
    "macro_f1",
    "nll",
]

SMALLEST_PROBABILITY = 1e-12  # a softmax in float32 can underflow to 0, and log(0) is not valid JSON


@dataclass(frozen=True)
class ClassScores:
    """Holds one-versus-rest scores of every class; each array has shape `[K]`, scores lie in `[0, 1]`."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray  # rows whose true class this is
    predicted: np.ndarray  # rows predicted as the class


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Returns the fraction of rows whose predicted class is the true one.

    Args:
        predictions (`ArrayLike`): Class indices, shape `[N]`.
        labels (`ArrayLike`): True class indices, shape `[N]`, none of them -1.

    Raises:
        ValueError: if there are no rows, the shapes differ, or a row has no label.
    """
    predictions, labels = _checked_pair(predictions, labels)
    return float(np.mean(predictions == labels))


def confusion_matrix(predictions: ArrayLike, labels: ArrayLike, num_classes: int) -> np.ndarray:
    """Counts rows by true class (row) and predicted class (column): `[K, K]`.

    Args:
        predictions (`ArrayLike`): Class indices below `num_classes`, shape `[N]`.
        labels (`ArrayLike`): True class indices below `num_classes`, shape `[N]`.
        num_classes (`int`): Number of classes K.
    """
    predictions, labels = _checked_pair(predictions, labels)
    highest = max(predictions.max(), labels.max())
    if highest >= num_classes:
        raise ValueError(f"Expected class indices below {num_classes}, got {highest}.")
    cells = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def class_scores(confusion: np.ndarray) -> ClassScores:
    """Computes precision, recall and F1 per class from a confusion matrix `[K, K]`; 0 where a denominator is 0."""
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
    """Returns the unweighted mean of the classes' F1 = 2 TP / (2 TP + FP + FN).

    As in scikit-learn, the mean runs over the classes that occur in `labels` or in `predictions`: a class that is
    missing in a small validation part does not change the mean.

    Args:
        predictions (`ArrayLike`): Class indices, shape `[N]`.
        labels (`ArrayLike`): True class indices, shape `[N]`.
    """
    predictions, labels = _checked_pair(predictions, labels)
    num_classes = int(max(predictions.max(), labels.max())) + 1
    scores = class_scores(confusion_matrix(predictions, labels, num_classes))
    return float(np.mean(scores.f1[(scores.support + scores.predicted) > 0]))


def nll(probs: ArrayLike, labels: ArrayLike) -> float:
    """Returns the mean negative log-likelihood of the true class, in nats. Probabilities below 1e-12 count as 1e-12.

    Args:
        probs (`ArrayLike`): Class probabilities, shape `[N, K]`, rows sum to 1.
        labels (`ArrayLike`): True class indices, shape `[N]`.
    """
    probs, labels = checked_probs_and_labels(probs, labels)
    of_truth = probs[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.clip(of_truth, SMALLEST_PROBABILITY, 1.0))))


def evaluate_probs(probs: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Computes `accuracy`, `macro_f1` and `ece` in `[0, 1]`, and `nll` in nats.

    Args:
        probs (`ArrayLike`): Class probabilities, shape `[N, K]`, rows sum to 1.
        labels (`ArrayLike`): True class indices, shape `[N]`, none of them -1.

    Raises:
        ValueError: if there are no rows, the shapes do not match, or the values are not probabilities and class
            indices.
    """
    probs, labels = checked_probs_and_labels(probs, labels)
    predictions = probs.argmax(axis=1)
    return {
        "accuracy": accuracy(predictions, labels),
        "macro_f1": macro_f1(predictions, labels),
        "nll": nll(probs, labels),
        "ece": expected_calibration_error(probs, labels),
    }


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
