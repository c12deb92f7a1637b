"""Class priors: that of the labels, that of the pool, and how a model's probabilities are moved to one.

A classifier that was trained on as many labels of each class expects the classes evenly, and says so: where the pool
holds a class rarely, it finds too many of it. And a poor classifier favours a class that the pool does not. Both show
in the shares that it gives the classes; only the second is to be undone by going back to the labels' shares.
Functions of arrays; M models, N rows, K classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from hfssl.errors import ConfigurationError

__all__ = [
    "DISTRIBUTION_ALIGNMENTS",
    "align_distribution",
    "class_prior",
    "consensus_prior",
    "estimate_prior",
    "given_prior",
    "predicted_prior",
]

# What the shares of the pool are taken to be: nothing is known; those of the predicted labels; those that explain what
# models that had others in mind have found; or as among the labels.
DISTRIBUTION_ALIGNMENTS = ("none", "predicted", "estimated", "labeled")
SPREAD, DISTRUST, LONE_DISAGREEMENT = 1.0, 8.0, 1.0
CLASSES_AT_HALF = 50  # at so many, predicted labels and the prior have an equal say in the shares
MAX_CHANGE = 2.0  # factor on a share: soft labels can send a rare class to nothing, all models alike


def class_prior(labels: ArrayLike, num_classes: int) -> np.ndarray:
    """Share of each class among labels, with one row of pseudo-count spread over all: no share is 0.

    Args:
        labels (`ArrayLike`): `[N]` class numbers; -1 (unlabeled) is left out.
        num_classes (`int`): K.

    Returns:
        `[K]` float64 that sums to 1.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels[labels >= 0], minlength=num_classes) + 1 / num_classes
    return counts / counts.sum()


def given_prior(given: str, label_names: Sequence[str]) -> np.ndarray:
    """Class prior in a user's words.

    Args:
        given (`str`): `"ham=0.9, spam=0.1"`, or a JSON file that holds `{"ham": 0.9, "spam": 0.1}`; the sum does not
            matter.
        label_names (`Sequence[str]`): K names.

    Returns:
        `[K]` float64, in the order of `label_names`, that sums to 1.

    Raises:
        ConfigurationError: not one positive number for each of the names and for nothing else.
    """
    try:
        if Path(given).suffix == ".json":
            pairs = list(json.loads(Path(given).read_text(encoding="utf-8")).items())
        else:
            pairs = [(name.strip(), value) for name, _, value in (part.rpartition("=") for part in given.split(","))]
        shares = {name: float(value) for name, value in pairs}
    except (OSError, ValueError, TypeError, AttributeError):
        pairs, shares = [], {}
    positive = all(value > 0 and math.isfinite(value) for value in shares.values())
    if not positive or sorted(name for name, _ in pairs) != sorted(label_names):
        example = ", ".join(f"{name}=1" for name in label_names[:3]) + ", ..." * (len(label_names) > 3)
        raise ConfigurationError(
            f"class_prior: expected one number above 0 for each class, such as '{example}', or a JSON file with "
            f"them; got '{given}'."
        )
    found = np.array([shares[name] for name in label_names])
    return found / found.sum()


def predicted_prior(predicted: ArrayLike, expected: ArrayLike) -> np.ndarray:
    """Class prior of unlabeled rows by their most probable classes, drawn to `expected` the more classes there are.

    Geometrically, as in `consensus_prior`, so that a class that is rare by itself remains so: the prior's exponent is
    K / (K + 50). A model that favours one class over its neighbour is fed by its own shares: with 77 and 150 classes
    these alone took 2.0 and 0.9 points from the labels, where they win 0.5 with six. 25 and 100 instead of 50 do the
    same (benchmarks/NOTES.md, 2026-11-26, second part).

    Args:
        predicted (`ArrayLike`): `[N]` class numbers.
        expected (`ArrayLike`): `[K]`, all positive: shares that are expected without the rows.

    Returns:
        `[K]` float64 that sums to 1.
    """
    expected = np.asarray(expected, np.float64)
    weight = len(expected) / (len(expected) + CLASSES_AT_HALF)
    shares = class_prior(predicted, len(expected)) ** (1 - weight) * expected**weight
    return shares / shares.sum()


def estimate_prior(
    probs: ArrayLike, source: ArrayLike, *, max_iterations: int = 1000, tolerance: float = 1e-6
) -> np.ndarray:
    """Class prior of unlabeled rows, by expectation maximisation (Saerens, Latinne & Decaestecker 2002, eq. 2.9).

    Maximises the likelihood of the rows over the shares, given that `probs` are right about everything but the shares.
    A model that is unsure without reason (a temperature above 1) breaks that condition, and rare classes then die out.

    Args:
        probs (`ArrayLike`): `[N, K]`, posteriors of a model that was trained on rows with shares `source`.
        source (`ArrayLike`): `[K]`, all positive; the estimate starts here and is this for N = 0.
        max_iterations (`int`, defaults to `1000`): most iterations.
        tolerance (`float`, defaults to `1e-6`): stop when no share changes by more.

    Returns:
        `[K]` float64 that sums to 1.

    Raises:
        ValueError: if a share in `source` is not positive.
    """
    probs, source = np.asarray(probs, np.float64), np.asarray(source, np.float64)
    if not (source > 0).all():
        raise ValueError(f"Expected a class prior without zeros, got {source.tolist()}.")
    estimate = source / source.sum()
    if not len(probs):
        return estimate
    likelihood = probs / source  # p(x|k), up to a factor that each row has for itself
    for _ in range(max_iterations):
        joint = likelihood * estimate
        fresh = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
        change, estimate = np.abs(fresh - estimate).max(), fresh
        if change <= tolerance:
            break
    return estimate


def consensus_prior(estimates: ArrayLike, default: ArrayLike, num_rows: int) -> np.ndarray:
    """Class prior of a pool from what several models found, drawn toward `default` the more they disagree.

    The log-ratio of a share to that in `default` is shrunk as in a random-effects model (DerSimonian & Laird 1986):
    by 1 / (1 + distrust * s^2 / spread^2), where s^2 is the variance of the log-ratios between the models, averaged
    over the classes, `spread` = 1 is how far pools are expected to be from `default`, and `distrust` = 8 allows for
    the bias that the models have in common, since they learned from the same few labels. So shares that all models
    find alike are believed, while those on which they differ are taken to be their own mistakes. A single model shows
    no disagreement; s = 1 is assumed. No ratio counts for more than 2 or less than 1/2. The numbers were chosen on
    trec6, sst2 and emotion; see `benchmarks/NOTES.md`.

    Args:
        estimates (`ArrayLike`): `[M, K]`, see `estimate_prior`; a share may be 0.
        default (`ArrayLike`): `[K]`, all positive: the models' mean probabilities leave everything as it is.
        num_rows (`int`): N, rows that the estimates rest on; one more, spread as `default`, counts as seen.

    Returns:
        `[K]` float64 that sums to 1.
    """
    estimates, default = np.asarray(estimates, np.float64), np.asarray(default, np.float64)
    ratios = np.log((num_rows * estimates / default + 1) / (num_rows + 1))
    ratios = ratios.clip(-np.log(MAX_CHANGE), np.log(MAX_CHANGE))
    disagreement = ratios.var(axis=0, ddof=1).mean() if len(ratios) > 1 else LONE_DISAGREEMENT**2
    trust = 1 / (1 + DISTRUST * disagreement / SPREAD**2)
    shares = default * np.exp(trust * ratios.mean(axis=0))
    return shares / shares.sum()


def align_distribution(
    probs: ArrayLike, target: ArrayLike, *, max_iterations: int = 1000, tolerance: float = 1e-6
) -> np.ndarray:
    """Weighs the classes so that the rows' mean probabilities become `target`.

    Distribution alignment (Berthelot et al. 2020, "ReMixMatch", section 3.1) carried to its end: p * target / mean(p),
    normalised, again and again, while ReMixMatch takes one such step and so falls short of the target.

    Args:
        probs (`ArrayLike`): `[N, K]`.
        target (`ArrayLike`): `[K]`, the shares that the rows are believed to have.
        max_iterations (`int`, defaults to `1000`): most iterations.
        tolerance (`float`, defaults to `1e-6`): stop when no class's mean is off by more.

    Returns:
        `[N, K]` in the dtype of `probs`. A class that no row gives any probability stays at 0.
    """
    probs, target = np.asarray(probs), np.asarray(target, np.float64)
    matched = probs.astype(np.float64)
    for _ in range(max_iterations):
        mean = matched.mean(axis=0)
        if np.abs(mean - target).max() <= tolerance:
            break
        matched = matched * np.divide(target, mean, out=np.zeros_like(mean), where=mean > 0)
        matched = matched / matched.sum(axis=1, keepdims=True)
    return matched.astype(probs.dtype)
