"""Linear probe: logistic regression on the means over the tokens of one or several layers, weighed by the labels.

A layer below the last one may separate some classes better, since the last layer of a sentence encoder was trained to
separate topics (benchmarks/NOTES.md, 2026-11-25). L labeled rows, N rows, H layers, K classes, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax
from sklearn.model_selection import StratifiedKFold

from hfssl.functional.logistic_regression import logistic_weights

__all__ = ["LayerProbe", "fit_layer_probe", "stacking_weights", "upper_layers"]

FOLDS = 4
PRIOR_ROWS = 1.0  # pseudo-count of each layer, so that no weight is 0
MAX_ITERATIONS, TOLERANCE = 1000, 1e-6


@dataclass(frozen=True)
class LayerProbe:
    """A mixture of linear classifiers, one for each layer.

    Attributes:
        weights (`np.ndarray`): `[H, K, D]`, coefficients for embeddings of length 1.
        biases (`np.ndarray`): `[H, K]`.
        mixture_weights (`np.ndarray`): `[H]`, weight of each layer in the mixture; they sum to 1.
    """

    weights: np.ndarray
    biases: np.ndarray
    mixture_weights: np.ndarray

    def probs(self, embeddings: np.ndarray) -> np.ndarray:
        """Predicts: `[H, N, D]`, vectors of length 1 -> `[N, K]`."""
        logits = np.einsum("hnd,hkd->hnk", embeddings, self.weights) + self.biases[:, None]
        return np.einsum("h,hnk->nk", self.mixture_weights, softmax(logits, axis=-1))


def upper_layers(depth: int) -> list[int]:
    """Returns the layers that are probed: at four and five sixths of the depth, and the last one; deepest last."""
    return sorted({max(1, round(depth * sixths / 6)) for sixths in (4, 5, 6)})


def fit_layer_probe(embeddings: np.ndarray, labels: np.ndarray, num_classes: int, *, seed: int) -> LayerProbe:
    """Fits each layer's classifier on all rows, and the mixture weights on rows held out by cross-validation.

    Args:
        embeddings (`np.ndarray`): `[H, L, D]` of the labeled rows, vectors of length 1.
        labels (`np.ndarray`): `[L]` class numbers, of two classes or more.
        num_classes (`int`): K.
        seed (`int`): Random seed of the stratified folds.
    """
    fitted = [_regression(layer, labels, num_classes) for layer in embeddings]
    mixture = np.full(len(embeddings), 1 / len(embeddings))
    counts = np.bincount(labels)
    smallest = int(counts[counts > 0].min())
    if smallest >= 2 and len(embeddings) > 1:  # with a single label some fold lacks its class
        held_out = np.zeros((len(embeddings), len(labels), num_classes))
        folds = StratifiedKFold(min(FOLDS, smallest), shuffle=True, random_state=seed % 2**32)
        for train, rest in folds.split(embeddings[0], labels):
            for layer, probs in zip(embeddings, held_out, strict=True):
                weight, bias = _regression(layer[train], labels[train], num_classes)
                probs[rest] = softmax(layer[rest] @ weight.T + bias, axis=1)
        mixture = stacking_weights(held_out, labels)
    return LayerProbe(*map(np.stack, zip(*fitted, strict=True)), mixture)


def stacking_weights(
    probs: np.ndarray, labels: np.ndarray, prior_rows: float | Sequence[float] = PRIOR_ROWS
) -> np.ndarray:
    """Returns the mixture of H models under which held-out labels are the most likely, drawn toward a prior.

    Stacking of predictive distributions by the logarithmic score (Yao et al. 2018, section 3.2), maximised by
    expectation maximisation under a Dirichlet prior, so that few labels change little.

    Args:
        probs (`np.ndarray`): `[H, L, K]`, of each model on rows to which it was not fitted.
        labels (`np.ndarray`): `[L]` class numbers; with L = 0 the weights are those of the prior.
        prior_rows (`float` or `Sequence[float]`, defaults to 1): Pseudo-count of each model, one for all or `[H]`.

    Returns:
        `np.ndarray`: `[H]` mixture weights that sum to 1.
    """
    likelihoods = np.maximum(probs[:, np.arange(len(labels)), labels], 1e-12)
    prior = np.broadcast_to(np.asarray(prior_rows, dtype=np.float64), len(probs))
    mixture = prior / prior.sum()
    for _ in range(MAX_ITERATIONS):
        responsible = mixture[:, None] * likelihoods
        responsible /= responsible.sum(axis=0)
        before, mixture = mixture, (responsible.sum(axis=1) + prior) / (len(labels) + prior.sum())
        if np.abs(mixture - before).max() < TOLERANCE:
            break
    return mixture


def _regression(rows: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    features, truth = torch.from_numpy(rows), torch.from_numpy(np.asarray(labels, dtype=np.int64))
    weight, bias = logistic_weights(features, truth, num_classes)
    return weight.numpy(), bias.numpy()
