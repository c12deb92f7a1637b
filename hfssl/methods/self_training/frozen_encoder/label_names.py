"""What the names of the classes say of a text: "joy" lies nearer to happy sentences than "anger" does.

A sentence encoder compares a class's name with a text before any label is seen (zero-shot classification by
embeddings; Veeranna et al. 2016, Yin et al. 2019). On few labels that is worth several labels a class where the names
are words ("positive", "card arrival"), and less than nothing where they are codes ("ABBR"): how far it is trusted is
chosen on the labeled rows, by cross-validation. N rows, L of them labeled, K classes, D dimensions.
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

# Factors on similarities of standard deviation 1. No more than 0.5: 1 lost 2 points on emotion where 0.5 gained 1.
STRENGTHS = (0.0, 0.25, 0.5)
# What the labels have to say, in nats, against names at the highest strength before these get none: with two or three
# labels a class a cross-validation is mostly chance. Worth 1 point at one label a class (of the 9 that the names are
# worth there), 1.6 at two, 0.6 at three and five and nothing at 16 (benchmarks/NOTES.md, 2026-11-27, fourth part).
DOUBT = 1.0
FOLDS = 5
PENALTY = 10.0  # C of the regression on embeddings of length 1, as benchmarks/peers.py has it for the same purpose


@dataclass(frozen=True)
class NamePrior:
    """What the names say of N rows.

    Attributes:
        strength: How far they are trusted; 0 for not at all.
        log_odds: `[N, K]`, to be added to the logarithms of a model's probabilities.
        held_out: `[V, K]`, the same of rows that were held out.
    """

    strength: float
    log_odds: np.ndarray
    held_out: np.ndarray


def multiplied(probs: np.ndarray, log_odds: np.ndarray) -> np.ndarray:
    """The product of a model's opinion and that of the names, normalised: `[N, K]` and `[N, K]` -> `[N, K]`."""
    return softmax(np.log(np.maximum(probs, 1e-30)) + log_odds, axis=-1).astype(probs.dtype)


def name_texts(names: Sequence[str]) -> list[str] | None:
    """The names as words; `None` where one of them has no letters or is what transformers calls a nameless class."""
    texts = [re.sub(r"[_\W]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).strip() for name in names]
    nameless = [not re.search(r"[^\W\d]", text) or re.fullmatch(r"(?i)(label|class) ?\d+", text) for text in texts]
    return None if any(nameless) else texts


def weigh_names(
    known: np.ndarray, labels: np.ndarray, pool: np.ndarray, names: np.ndarray, held_out: np.ndarray, *, seed: int
) -> NamePrior:
    """How far the names are to be trusted, and what they say of the pool.

    Args:
        known: `[L, D]` embeddings of the labeled rows by the untrained backbone, of length 1.
        labels: `[L]` their class numbers.
        pool: `[N, D]` embeddings of the pool.
        names: `[K, D]` embeddings of the names.
        held_out: `[V, D]` embeddings of held-out rows.
        seed: of the folds.
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
    """The one of `STRENGTHS` that is the most probable, by labels on which no regression was fitted and `DOUBT`.

    What is cross-validated is logistic regression on the embeddings with the names' scores as an offset, so that the
    names are only asked for what the labels do not say by themselves. With fewer than two labels a class the names are
    asked alone: they have seen no label.

    Args:
        features: `[L, D]`.
        labels: `[L]`.
        scores: `[L, K]`.
        seed: of the folds.
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
    """Rows to fit and rows held out, fold by fold; a single fold with none to fit where the labels are too few."""
    counts = np.bincount(labels)
    if len(labels) < 2 * np.count_nonzero(counts) or np.count_nonzero(counts) < 2:
        return [(np.arange(0), np.arange(len(labels)))]
    folds = StratifiedKFold(min(FOLDS, max(2, int(counts[counts > 0].min()))), shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():  # a class with one label is in one fold, which is as well as it can be
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return list(folds.split(features, labels))
