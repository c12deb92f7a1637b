"""Estimates the accuracy of a model on unlabeled rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["average_thresholded_confidence"]


def average_thresholded_confidence(held_out: ArrayLike, labels: ArrayLike, unlabeled: ArrayLike) -> float | None:
    """Estimates the accuracy on unlabeled rows as the share of rows whose confidence is above a threshold.

    On held-out rows, as many rows lie above the threshold as the model predicts correctly (Garg et al. 2022,
    "Leveraging Unlabeled Data to Predict Out-of-Distribution Performance", equations 4 and 5). Confidence is the
    negative entropy of the probabilities. The estimate is as noisy as the held-out accuracy.

    Args:
        held_out (`ArrayLike`): `[V, K]` probabilities of labeled rows that the model was not trained on.
        labels (`ArrayLike`): `[V]` true class numbers of the held-out rows.
        unlabeled (`ArrayLike`): `[N, K]` probabilities of the unlabeled rows.

    Returns:
        The estimated accuracy in [0, 1]; `None` for V = 0 or N = 0.
    """
    held_out, unlabeled = np.asarray(held_out), np.asarray(unlabeled)
    if not len(held_out) or not len(unlabeled):
        return None
    wrong = int((held_out.argmax(axis=1) != np.asarray(labels)).sum())
    certainty = np.sort(_negative_entropy(held_out))
    if wrong in (0, len(certainty)):  # no row lies on the other side of any threshold
        return 1.0 - wrong / len(certainty)
    threshold = (certainty[wrong - 1] + certainty[wrong]) / 2
    return float((_negative_entropy(unlabeled) > threshold).mean())


def _negative_entropy(probs: np.ndarray) -> np.ndarray:
    return (probs * np.log(np.maximum(probs, 1e-12))).sum(axis=1)
