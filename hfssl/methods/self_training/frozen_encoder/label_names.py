"""Class names as a signal: "joy" is more similar to happy sentences than "anger".

A sentence encoder compares the name of a class with a text, without labels (zero-shot classification by embeddings;
Veeranna et al. 2016, Yin et al. 2019). With few labels the names help where they are words ("positive", "card
arrival"), and hurt where they are codes ("ABBR"). Cross-validation on the labeled rows therefore selects the strength
of the signal. N rows, L of them labeled, K classes, D dimensions.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.model_selection import StratifiedKFold

from hfssl.functional.logistic_regression import softmax_regression

__all__ = ["STRENGTHS", "NamePrior", "choose_strength", "multiplied", "name_texts", "weigh_names"]

# Factors on similarities of standard deviation 1. A factor of 1 reduces the accuracy (benchmarks/NOTES.md).
STRENGTHS = (0.0, 0.25, 0.5)
# Log prior of the highest strength minus that of strength 0, in nats: with two or three labels per class a
# cross-validation is mostly chance (benchmarks/NOTES.md, 2026-11-27, fourth part).
DOUBT = 1.0
FOLDS = 5
PENALTY = 10.0  # C of the regression on embeddings of length 1, as in benchmarks/peers.py


@dataclass(frozen=True)
class NamePrior:
    """Holds the log odds that the class names give to N rows.

    Attributes:
        strength (`float`): Strength of the signal; 0 turns it off.
        log_odds (`np.ndarray`): Summands for the logarithms of a model's probabilities, `[N, K]`.
        held_out (`np.ndarray`): The same for held-out rows, `[V, K]`.
    """

    strength: float
    log_odds: np.ndarray
    held_out: np.ndarray


def multiplied(probs: np.ndarray, log_odds: np.ndarray) -> np.ndarray:
    """Returns the product of a model's probabilities and the odds of the names, normalised, all `[N, K]`."""
    return softmax(np.log(np.maximum(probs, 1e-30)) + log_odds, axis=-1).astype(probs.dtype)


def name_texts(names: Sequence[str]) -> list[str] | None:
    """Returns the names as words; `None` where a name has no letters or is a default of transformers ("LABEL_0").

    Args:
        names (`Sequence[str]`): Names of the K classes.
    """
    texts = [re.sub(r"[_\W]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).strip() for name in names]
    nameless = [not re.search(r"[^\W\d]", text) or re.fullmatch(r"(?i)(label|class) ?\d+", text) for text in texts]
    return None if any(nameless) else texts


def weigh_names(
    known: np.ndarray, labels: np.ndarray, pool: np.ndarray, names: np.ndarray, held_out: np.ndarray, *, seed: int
) -> NamePrior:
    """Selects the strength of the names, and computes their odds.

    Args:
        known (`np.ndarray`): Embeddings of the labeled rows by the untrained backbone, of length 1, `[L, D]`.
        labels (`np.ndarray`): Class numbers of these rows, `[L]`.
        pool (`np.ndarray`): Embeddings of the pool, `[N, D]`.
        names (`np.ndarray`): Embeddings of the names, `[K, D]`.
        held_out (`np.ndarray`): Embeddings of held-out rows, `[V, D]`.
        seed (`int`): Random seed of the folds.
    """
    center = pool.mean(axis=0)
    directions = (names - names.mean(axis=0)).T
    spread = ((pool - center) @ directions).std()
    if not spread > 0:  # all names, or all texts, are the same to the backbone
        return NamePrior(0.0, *(np.zeros((len(rows), len(names)), np.float32) for rows in (pool, held_out)))
    scores, *others = ((rows - center) @ directions / spread for rows in (known, pool, held_out))
    strength = choose_strength(known, labels, scores, seed=seed)
    return NamePrior(strength, *((strength * rows).astype(np.float32) for rows in others))


def choose_strength(features: np.ndarray, labels: np.ndarray, scores: np.ndarray, *, seed: int) -> float:
    """Returns the most probable one of `STRENGTHS`, by labels held out from a regression, and by `DOUBT`.

    The cross-validation is that of a logistic regression on the embeddings with the names' scores as an offset, so
    that only the information that the names add to the labels counts. With fewer than two labels per class the names
    are tested alone, since they depend on no label.

    Args:
        features (`np.ndarray`): Embeddings of the labeled rows, `[L, D]`.
        labels (`np.ndarray`): Class numbers of these rows, `[L]`.
        scores (`np.ndarray`): Similarities of the rows with the names, `[L, K]`.
        seed (`int`): Random seed of the folds.
    """
    losses = {strength: DOUBT * (1 - strength / max(STRENGTHS)) ** 2 for strength in STRENGTHS}
    for train, held_out in _folds(features, labels, seed):
        for strength in STRENGTHS:
            offset = strength * scores
            logits = offset[held_out]
            if len(train):
                weight, bias = softmax_regression(
                    features[train],
                    np.eye(scores.shape[1])[labels[train]],
                    np.ones(len(train)),
                    penalty=1 / PENALTY,
                    # Small, but not 0: the bias of a class without a row in the fold would go to minus infinity.
                    bias_penalty=0.01 / PENALTY,
                    offset=offset[train],
                )
                logits = logits + features[held_out] @ weight.T + bias
            losses[strength] -= log_softmax(logits, axis=1)[np.arange(len(held_out)), labels[held_out]].sum()
    return min(STRENGTHS, key=losses.__getitem__)


def _folds(features: np.ndarray, labels: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns training and held-out rows of each fold; one fold without training rows where labels are too few."""
    counts = np.bincount(labels)
    if len(labels) < 2 * np.count_nonzero(counts) or np.count_nonzero(counts) < 2:
        return [(np.arange(0), np.arange(len(labels)))]
    folds = StratifiedKFold(min(FOLDS, max(2, int(counts[counts > 0].min()))), shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():  # a class with a single label can only be in one fold
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return list(folds.split(features, labels))
