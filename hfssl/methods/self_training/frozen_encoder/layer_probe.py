"""Logistic regression on the means over the tokens of one or several layers, each with the say that labels speak for.

What a class is about may be plainer below the last layer, which a sentence encoder was trained to fill with topics: of
the untrained backbone a probe of the last layer alone lost 4 to 6 points on sentiment and kinds of question, and won 2
on emotions (benchmarks/NOTES.md, 2026-11-25). L labeled rows, N rows, H layers, K classes, D dimensions.
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
PRIOR_ROWS = 1.0  # rows that each layer is given for a start, so that no say is nothing
MAX_ITERATIONS, TOLERANCE = 1000, 1e-6


@dataclass(frozen=True)
class LayerProbe:
    """A mixture of linear classifiers, one a layer.

    Attributes:
        weights: `[H, K, D]` on embeddings of length 1.
        biases: `[H, K]`.
        shares: `[H]`, the say of each layer; they add up to 1.
    """

    weights: np.ndarray
    biases: np.ndarray
    shares: np.ndarray

    def probs(self, embeddings: np.ndarray) -> np.ndarray:
        """`[H, N, D]`, vectors of length 1 -> `[N, K]`."""
        logits = np.einsum("hnd,hkd->hnk", embeddings, self.weights) + self.biases[:, None]
        return np.einsum("h,hnk->nk", self.shares, softmax(logits, axis=-1))


def upper_layers(depth: int) -> list[int]:
    """The layers that are asked: the last one, and those at five and four sixths of the depth; deepest last."""
    return sorted({max(1, round(depth * sixths / 6)) for sixths in (4, 5, 6)})


def fit_layer_probe(embeddings: np.ndarray, labels: np.ndarray, num_classes: int, *, seed: int) -> LayerProbe:
    """Fits each layer's classifier on all rows, and their say on rows held out by stratified cross-validation.

    Args:
        embeddings: `[H, L, D]` of the labeled rows, vectors of length 1.
        labels: `[L]`, of two classes or more.
        num_classes: K.
        seed: of the folds.
    """
    fitted = [_regression(layer, labels, num_classes) for layer in embeddings]
    shares = np.full(len(embeddings), 1 / len(embeddings))
    counts = np.bincount(labels)
    fewest = int(counts[counts > 0].min())
    if fewest >= 2 and len(embeddings) > 1:  # with a single label some fold lacks its class
        held_out = np.zeros((len(embeddings), len(labels), num_classes))
        folds = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=seed % 2**32)
        for train, rest in folds.split(embeddings[0], labels):
            for layer, probs in zip(embeddings, held_out, strict=True):
                weight, bias = _regression(layer[train], labels[train], num_classes)
                probs[rest] = softmax(layer[rest] @ weight.T + bias, axis=1)
        shares = stacking_weights(held_out, labels)
    return LayerProbe(*map(np.stack, zip(*fitted, strict=True)), shares)


def stacking_weights(
    probs: np.ndarray, labels: np.ndarray, prior_rows: float | Sequence[float] = PRIOR_ROWS
) -> np.ndarray:
    """The mixture of H models under which held-out labels are the most likely, drawn to what was thought before.

    Stacking of predictive distributions by the logarithmic score (Yao et al. 2018, section 3.2), maximised by
    expectation maximisation under a Dirichlet prior, so that few labels change little.

    Args:
        probs: `[H, L, K]`, each model's on rows that it was not fitted to.
        labels: `[L]`; without any, the shares are those of `prior_rows`.
        prior_rows: rows that each model is given for a start, one number for all or `[H]`.

    Returns:
        `[H]`, which add up to 1.
    """
    likelihoods = np.maximum(probs[:, np.arange(len(labels)), labels], 1e-12)
    prior = np.broadcast_to(np.asarray(prior_rows, dtype=np.float64), len(probs))
    shares = prior / prior.sum()
    for _ in range(MAX_ITERATIONS):
        responsible = shares[:, None] * likelihoods
        responsible /= responsible.sum(axis=0)
        before, shares = shares, (responsible.sum(axis=1) + prior) / (len(labels) + prior.sum())
        if np.abs(shares - before).max() < TOLERANCE:
            break
    return shares


def _regression(rows: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    features, truth = torch.from_numpy(rows), torch.from_numpy(np.asarray(labels, dtype=np.int64))
    weight, bias = logistic_weights(features, truth, num_classes)
    return weight.numpy(), bias.numpy()
