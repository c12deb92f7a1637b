"""Class names as a signal: "joy" lies nearer to happy sentences than "anger" does.

A sentence encoder compares a class's name with a text before any label is seen (zero-shot classification by
embeddings; Veeranna et al. 2016, Yin et al. 2019). With few labels that helps where the names are words ("positive",
"card arrival"), and hurts where they are codes ("ABBR"): how far it is trusted is chosen on the labeled rows, by
cross-validation. N rows, L of them labeled, K classes, D dimensions.
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

# Factors on similarities of standard deviation 1. No more than 0.5: 1 hurts (benchmarks/NOTES.md).
STRENGTHS = (0.0, 0.25, 0.5)
# Evidence of the labels, in nats, that it takes to give names at the highest strength none: with two or three labels a
# class a cross-validation is mostly chance (benchmarks/NOTES.md, 2026-11-27, fourth part).
DOUBT = 1.0
FOLDS = 5
PENALTY = 10.0  # C of the regression on embeddings of length 1, as benchmarks/peers.py has it for the same purpose


@dataclass(frozen=True)
class NamePrior:
    """What the class names tell of N rows.

    Attributes:
        strength (`float`): How far the names are trusted; 0 for not at all.
        log_odds (`np.ndarray`): `[N, K]`, to be added to the logarithms of a model's probabilities.
        held_out (`np.ndarray`): `[V, K]`, the same for rows that were held out.
    """

    strength: float
    log_odds: np.ndarray
    held_out: np.ndarray


def multiplied(probs: np.ndarray, log_odds: np.ndarray) -> np.ndarray:
    """Returns the product of a model's probabilities and the odds of the names, normalised, all `[N, K]`."""
    return softmax(np.log(np.maximum(probs, 1e-30)) + log_odds, axis=-1).astype(probs.dtype)


def name_texts(names: Sequence[str]) -> list[str] | None:
    """Returns the names as words; `None` where one has no letters, or is what transformers calls a nameless class."""
    texts = [re.sub(r"[_\W]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).strip() for name in names]
    nameless = [not re.search(r"[^\W\d]", text) or re.fullmatch(r"(?i)(label|class) ?\d+", text) for text in texts]
    return None if any(nameless) else texts


def weigh_names(
    known: np.ndarray, labels: np.ndarray, pool: np.ndarray, names: np.ndarray, held_out: np.ndarray, *, seed: int
) -> NamePrior:
    """Chooses how far the names are to be trusted, and computes their odds.

    Args:
        known (`np.ndarray`): `[L, D]` embeddings of the labeled rows by the untrained backbone, of length 1.
        labels (`np.ndarray`): `[L]` class numbers of these rows.
        pool (`np.ndarray`): `[N, D]` embeddings of the pool.
        names (`np.ndarray`): `[K, D]` embeddings of the names.
        held_out (`np.ndarray`): `[V, D]` embeddings of held-out rows.
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
    """Returns the one of `STRENGTHS` that is the most probable, by labels held out from a regression, and `DOUBT`.

    The cross-validation is that of a logistic regression on the embeddings with the names' scores as an offset, so
    that the names count only for what the labels do not tell by themselves. With fewer than two labels a class the
    names are judged alone: they have seen no label.

    Args:
        features (`np.ndarray`): `[L, D]`.
        labels (`np.ndarray`): `[L]`.
        scores (`np.ndarray`): `[L, K]`, similarities with the names.
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
                    # Hardly any: a class without a row in the fold would send it to minus infinity.
                    bias_penalty=0.01 / PENALTY,
                    offset=offset[train],
                )
                logits = logits + features[held_out] @ weight.T + bias
            losses[strength] -= log_softmax(logits, axis=1)[np.arange(len(held_out)), labels[held_out]].sum()
    return min(STRENGTHS, key=losses.__getitem__)


def _folds(features: np.ndarray, labels: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns rows to fit and rows held out, fold by fold; one fold with no row to fit where labels are too few."""
    counts = np.bincount(labels)
    if len(labels) < 2 * np.count_nonzero(counts) or np.count_nonzero(counts) < 2:
        return [(np.arange(0), np.arange(len(labels)))]
    folds = StratifiedKFold(min(FOLDS, max(2, int(counts[counts > 0].min()))), shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():  # a class with one label is in one fold, which is as well as it can be
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return list(folds.split(features, labels))
