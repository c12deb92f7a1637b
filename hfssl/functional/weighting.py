"""Weights pseudo-labeled rows by the certainty of their labels. Pure functions of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hfssl.functional.uncertainty import entropy

__all__ = [
    "WEIGHTINGS",
    "confidence",
    "log_variance",
    "normalize_to_mean_one",
    "one_minus_bald",
    "one_minus_entropy",
    "pseudo_label_weights",
    "uniform",
]


def log_variance(variance: Tensor, alpha: float = 0.1, eps: float = 1e-10) -> Tensor:
    """Returns UST's confidence weight, -alpha log(Var + eps) (Mukherjee & Awadallah 2020, "confident learning").

    The variance is that of the predicted class; UST's reference code uses class 0's for every row, which is a bug.
    Since a probability's variance is at most 1/4, the weight is positive: between 0.14 (passes that contradict each
    other) and 2.30 (passes that agree) at the default values.

    Args:
        variance (`Tensor`): `[N]`, variance over the passes of the predicted class's probability.
        alpha (`float`, defaults to `0.1`): Scale; it cancels out when the weights are normalized to mean 1.
        eps (`float`, defaults to `1e-10`): Bound on the weight of rows whose passes agree exactly.

    Returns:
        `[N]`.
    """
    return -alpha * torch.log(variance + eps)


def one_minus_entropy(probs: Tensor) -> Tensor:
    """Returns 1 - H(p) / log K (Iscen et al. 2019, the weight of a pseudo-label).

    Args:
        probs (`Tensor`): `[N, K]`, K at least 2.

    Returns:
        `[N]`, from 0 (uniform) to 1 (certain).
    """
    return (1.0 - entropy(probs) / math.log(probs.shape[-1])).clamp(0.0, 1.0)


def one_minus_bald(bald: Tensor, num_classes: int) -> Tensor:
    """Returns 1 - BALD / log K: the passes' disagreement in place of the predictive entropy of `one_minus_entropy`.

    Args:
        bald (`Tensor`): `[N]` in nats.
        num_classes (`int`): Number of classes K, at least 2.

    Returns:
        `[N]`, from 0 (each pass is certain of another class) to 1 (the passes agree).
    """
    return (1.0 - bald / math.log(num_classes)).clamp(0.0, 1.0)


def confidence(probs: Tensor) -> Tensor:
    """Returns the probability of the most likely class.

    Args:
        probs (`Tensor`): `[N, K]`.

    Returns:
        `[N]`, between 1/K and 1.
    """
    return probs.amax(dim=-1)


def uniform(probs: Tensor) -> Tensor:
    """Returns weight 1 for every row: plain self-training.

    Args:
        probs (`Tensor`): `[N, K]`.

    Returns:
        `[N]` of ones.
    """
    return torch.ones_like(probs[..., 0])


def normalize_to_mean_one(weights: Tensor) -> Tensor:
    """Divides weights by their mean, so that weighting does not change the size of the unlabeled loss.

    Args:
        weights (`Tensor`): `[N]`, at least 0. If all are 0, all stay 0.

    Returns:
        `[N]` with mean 1.
    """
    return weights / weights.mean().clamp_min(torch.finfo(weights.dtype).tiny)


Weighting = Callable[[Tensor, Tensor, Tensor], Tensor]

# From probs [N, K] (mean over the passes), variance [N] of the predicted class and bald [N] in nats to weights [N].
WEIGHTINGS: dict[str, Weighting] = {
    "log_variance": lambda probs, variance, bald: log_variance(variance),
    "one_minus_entropy": lambda probs, variance, bald: one_minus_entropy(probs),
    "one_minus_bald": lambda probs, variance, bald: one_minus_bald(bald, probs.shape[-1]),
    "confidence": lambda probs, variance, bald: confidence(probs),
    "uniform": lambda probs, variance, bald: uniform(probs),
}


def pseudo_label_weights(
    name: str, probs: Tensor, variance: Tensor, bald: Tensor, *, normalize: bool = True
) -> Tensor:
    """Returns the weights of the *selected* rows by the weighting `name`.

    Args:
        name (`str`): A key of `WEIGHTINGS`.
        probs (`Tensor`): `[N, K]`, mean over the passes.
        variance (`Tensor`): `[N]`, variance of the predicted class's probability over the passes.
        bald (`Tensor`): `[N]` in nats.
        normalize (`bool`, defaults to `True`): Whether to scale to mean 1 over these rows.

    Returns:
        `[N]`.
    """
    weights = WEIGHTINGS[name](probs, variance, bald)
    return normalize_to_mean_one(weights) if normalize else weights
