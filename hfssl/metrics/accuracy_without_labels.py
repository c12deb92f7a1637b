"""How accurate a model is on rows whose labels nobody knows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["average_thresholded_confidence"]


def average_thresholded_confidence(held_out: ArrayLike, labels: ArrayLike, unlabeled: ArrayLike) -> float | None:
    """Accuracy on unlabeled rows: the share of them of which the model is surer than a threshold.

    The threshold is the one above which lie as many held-out rows as the model gets right (Garg et al. 2022,
    "Leveraging Unlabeled Data to Predict Out-of-Distribution Performance", equations 4 and 5), with the negative
    entropy of the probabilities as the measure of how sure it is. It inherits the noise of the held-out accuracy.

    Args:
        held_out (`ArrayLike`): `[V, K]` probabilities of rows with known labels that were not trained on.
        labels (`ArrayLike`): `[V]`.
        unlabeled (`ArrayLike`): `[N, K]` probabilities.

    Returns:
        A share in [0, 1]; `None` for V = 0 or N = 0.
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
