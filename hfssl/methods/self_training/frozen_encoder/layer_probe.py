"""Linear probe: logistic regression on the means over the tokens of one or several layers, weighted by the labels.

A layer below the last one may separate some classes better, since the last layer of a sentence encoder was trained to
separate topics (benchmarks/NOTES.md, 2026-11-25). L labeled rows, N rows, H layers, K classes, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax
from sklearn.model_selection import StratifiedKFold

from hfssl.functional.logistic_regression import logistic_weights
from hfssl.functional.stacking import stacking_weights

__all__ = ["LayerProbe", "fit_layer_probe", "upper_layers"]

FOLDS = 4


@dataclass(frozen=True)
class LayerProbe:
    """Mixes the predictions of linear classifiers, one for each layer.

    Attributes:
        weights (`np.ndarray`): Coefficients for embeddings of length 1, `[H, K, D]`.
        biases (`np.ndarray`): Biases, `[H, K]`.
        mixture_weights (`np.ndarray`): Weight of each layer in the mixture, `[H]`; the sum is 1.
    """

    weights: np.ndarray
    biases: np.ndarray
    mixture_weights: np.ndarray

    def probs(self, embeddings: np.ndarray) -> np.ndarray:
        """Returns the predicted probabilities, `[N, K]`.

        Args:
            embeddings (`np.ndarray`): Embeddings of length 1, `[H, N, D]`.
        """
        logits = np.einsum("hnd,hkd->hnk", embeddings, self.weights) + self.biases[:, None]
        return np.einsum("h,hnk->nk", self.mixture_weights, softmax(logits, axis=-1))


def upper_layers(depth: int) -> list[int]:
    """Returns the layers of a probe: at four and five sixths of the depth, and the last one; deepest last.

    Args:
        depth (`int`): Number of layers of the encoder.
    """
    return sorted({max(1, round(depth * sixths / 6)) for sixths in (4, 5, 6)})


def fit_layer_probe(embeddings: np.ndarray, labels: np.ndarray, num_classes: int, *, seed: int) -> LayerProbe:
    """Fits each layer's classifier on all rows, and the mixture weights on rows held out by cross-validation.

    Args:
        embeddings (`np.ndarray`): Embeddings of the labeled rows, of length 1, `[H, L, D]`.
        labels (`np.ndarray`): Class numbers, of two classes or more, `[L]`.
        num_classes (`int`): Number K of classes.
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


def _regression(rows: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    features, truth = torch.from_numpy(rows), torch.from_numpy(np.asarray(labels, dtype=np.int64))
    weight, bias = logistic_weights(features, truth, num_classes)
    return weight.numpy(), bias.numpy()
