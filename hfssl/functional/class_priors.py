"""Estimates class priors of labels and of the pool, and moves a model's probabilities to one.

A classifier that was trained on equally many labels of each class predicts the classes about equally often. Where a
class is rare in the pool, it predicts this class too often. A poor classifier also favours a class without reason.
Both effects change the shares of the predicted classes; only the second is corrected by moving the predictions to the
class prior of the labels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from hfssl.errors import ConfigurationError

__all__ = [
    "DISTRIBUTION_ALIGNMENTS",
    "align_distribution",
    "class_prior",
    "class_weights",
    "consensus_prior",
    "estimate_prior",
    "given_numbers",
    "given_prior",
    "predicted_prior",
]

# Class prior of the pool that predictions are moved to: none; that of the predicted labels; the maximum-likelihood
# estimate from the models' probabilities; that of the labels.
DISTRIBUTION_ALIGNMENTS = ("none", "predicted", "estimated", "labeled")
SPREAD, DISTRUST, LONE_DISAGREEMENT = 1.0, 8.0, 1.0
CLASSES_AT_HALF = 50  # number of classes at which predicted labels and the expected prior have equal weight
MAX_CHANGE = 2.0  # largest factor on a share: soft labels can move a rare class to 0 in all models alike


def class_prior(labels: ArrayLike, num_classes: int) -> np.ndarray:
    """Returns the share of each class among labels, with a pseudo-count of one row in all, so that no share is 0.

    Args:
        labels (`ArrayLike`): `[N]` class numbers; -1 (unlabeled) is left out.
        num_classes (`int`): Number of classes K.

    Returns:
        `[K]` float64 that sums to 1.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels[labels >= 0], minlength=num_classes) + 1 / num_classes
    return counts / counts.sum()


def given_prior(given: str | Mapping[str, float], label_names: Sequence[str]) -> np.ndarray:
    """Reads a class prior that a user has written.

    Args:
        given (`str | Mapping[str, float]`): `{"ham": 0.9, "spam": 0.1}`, `"ham=0.9, spam=0.1"`, or a JSON file that
            holds the former; the sum does not matter.
        label_names (`Sequence[str]`): The K class names.

    Returns:
        `[K]` float64, in the order of `label_names`, that sums to 1.

    Raises:
        ConfigurationError: if there is not exactly one positive number for each class name, or if there are other
            names.
    """
    found = given_numbers(given, label_names, "class_prior")
    return found / found.sum()


def given_numbers(given: str | Mapping[str, float], label_names: Sequence[str], option: str) -> np.ndarray:
    """Reads one positive number for each class that a user has written.

    Args:
        given (`str | Mapping[str, float]`): See `given_prior`.
        label_names (`Sequence[str]`): The K class names.
        option (`str`): Name of the option, for the message.

    Returns:
        `[K]` float64, in the order of `label_names`.

    Raises:
        ConfigurationError: if there is not exactly one positive number for each class name, or if there are other
            names.
    """
    try:
        if isinstance(given, Mapping):
            pairs = list(given.items())
        elif Path(given).suffix == ".json":
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
            f"{option}: expected one number above 0 for each class, such as '{example}', or a JSON file with "
            f"them; got '{given}'."
        )
    return np.array([shares[name] for name in label_names])


def class_weights(given: str | Mapping[str, float], labels: ArrayLike, label_names: Sequence[str]) -> np.ndarray:
    """Returns the weight of each class in a loss.

    `"balanced"` gives N / (K n_c), as scikit-learn does: the weights of all rows sum to N, those of a class to N / K.

    Args:
        given (`str | Mapping[str, float]`): `"balanced"`, or numbers as in `given_prior`.
        labels (`ArrayLike`): Classes of the N labeled rows, `[N]`; each class has a row.
        label_names (`Sequence[str]`): The K class names.

    Returns:
        `[K]` float64.

    Raises:
        ConfigurationError: as `given_numbers`.
    """
    if given != "balanced":
        return given_numbers(given, label_names, "class_weights")
    counts = np.bincount(np.asarray(labels), minlength=len(label_names))
    return counts.sum() / (len(label_names) * np.maximum(counts, 1))


def predicted_prior(predicted: ArrayLike, expected: ArrayLike) -> np.ndarray:
    """Estimates the class prior of unlabeled rows from predicted classes, shrunk to `expected` for many classes.

    The estimate is a weighted geometric mean, as in `consensus_prior`, so that a rare class remains rare; the exponent
    of `expected` is K / (K + 50). A model that favours one class and is moved to its own shares favours it even more,
    and the harm grows with the number of classes (benchmarks/NOTES.md, 2026-11-26, second part).

    Args:
        predicted (`ArrayLike`): `[N]` predicted class numbers.
        expected (`ArrayLike`): `[K]`, all positive: class prior that is expected before any row is seen.

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
    """Estimates the class prior of unlabeled rows by expectation maximisation (Saerens et al. 2002, equation 2.9).

    The estimate maximises the likelihood of the rows over the class prior. It assumes that `probs` are right except
    for the class prior. A model that is less confident than it should be (a temperature above 1) breaks this
    assumption: the shares of rare classes then go to 0.

    Args:
        probs (`ArrayLike`): `[N, K]`, probabilities of a model that was trained on rows with class prior `source`.
        source (`ArrayLike`): `[K]`, all positive: start of the estimate, and the result for N = 0.
        max_iterations (`int`, defaults to `1000`): Largest number of iterations.
        tolerance (`float`, defaults to `1e-6`): Largest change of a share at which the iteration stops.

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
    likelihood = probs / source  # p(x|k), up to a factor per row
    for _ in range(max_iterations):
        joint = likelihood * estimate
        fresh = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
        change, estimate = np.abs(fresh - estimate).max(), fresh
        if change <= tolerance:
            break
    return estimate


def consensus_prior(estimates: ArrayLike, default: ArrayLike, num_rows: int) -> np.ndarray:
    """Combines the class priors that several models estimate, shrunk toward `default` the more the models disagree.

    The log-ratio of each share to that in `default` is shrunk as in a random-effects model (DerSimonian & Laird 1986):
    by 1 / (1 + distrust * s^2 / spread^2). s^2 is the variance of the log-ratios between the models, averaged over the
    classes; `spread` = 1 is the expected distance of a pool from `default`; `distrust` = 8 allows for the bias that
    the models share, since they learned from the same few labels. So a change that all models agree on has a large
    effect, and one on which they differ has a small one. For a single model s = 1 is assumed. Ratios are clipped to
    [1/2, 2]. The constants were selected on trec6, sst2 and emotion; see `benchmarks/NOTES.md`.

    Args:
        estimates (`ArrayLike`): `[M, K]`, class prior from each model (`estimate_prior`); a share may be 0.
        default (`ArrayLike`): `[K]`, all positive: class prior to shrink toward. The models' mean probabilities mean
            no change.
        num_rows (`int`): Number of rows N behind the estimates; one pseudo-row with the class prior `default` is
            added.

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
    """Reweights the classes so that the mean of the rows' probabilities becomes `target`.

    Distribution alignment (Berthelot et al. 2020, "ReMixMatch", section 3.1) iterated until it converges: p * target /
    mean(p), normalised. ReMixMatch takes one such step, which does not reach the target.

    Args:
        probs (`ArrayLike`): `[N, K]`.
        target (`ArrayLike`): `[K]`, class prior that the rows are assumed to have.
        max_iterations (`int`, defaults to `1000`): Largest number of iterations.
        tolerance (`float`, defaults to `1e-6`): Largest deviation of a class's mean at which the iteration stops.

    Returns:
        `[N, K]` in the dtype of `probs`. A class with probability 0 in every row stays at 0.
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
