"""Measures the uncertainty of predictions; entropies are in nats. Pure functions of tensors.

`probs` are probabilities over the last axis. Functions of several passes take T stochastic forward passes (MC dropout,
Gal & Ghahramani 2016) over the same N rows with K classes: `[T, N, K]`. One pass (T = 1) is allowed: BALD, variances
and variation ratio are then exactly 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["bald", "entropy", "predicted_class_variance", "predictive_variance", "variation_ratio"]


def entropy(probs: Tensor) -> Tensor:
    """Returns the entropy H(p) = -sum_k p_k log p_k in nats, with 0 log 0 = 0.

    Args:
        probs (`Tensor`): `[..., K]`.

    Returns:
        `[...]`, between 0 and log K.
    """
    return torch.special.entr(probs).sum(dim=-1)


def bald(probs: Tensor) -> Tensor:
    """Returns the mutual information of label and weights, H(mean_t p_t) - mean_t H(p_t) (Houlsby et al. 2011, eq. 2).

    It is 0 where all passes agree, even if they are uncertain, and large where confident passes disagree.

    Args:
        probs (`Tensor`): `[T, N, K]`.

    Returns:
        `[N]` in nats, between 0 and log K (rounding below 0 is cut off).
    """
    return (entropy(probs.mean(dim=0)) - entropy(probs).mean(dim=0)).clamp_min(0.0)


def predictive_variance(probs: Tensor) -> Tensor:
    """Returns the variance of each class's probability over the passes.

    This is the *population* variance (divided by T, not by T - 1), as in UST's code: one pass gives 0 and not NaN.

    Args:
        probs (`Tensor`): `[T, N, K]`.

    Returns:
        `[N, K]`, between 0 and 1/4.
    """
    return probs.var(dim=0, correction=0)


def predicted_class_variance(probs: Tensor, predicted: Tensor) -> Tensor:
    """Returns the population variance, over the passes, of the probability of each row's predicted class (UST).

    Args:
        probs (`Tensor`): `[T, N, K]`.
        predicted (`Tensor`): `[N]` int64, class of each row.

    Returns:
        `[N]`, between 0 and 1/4.
    """
    return predictive_variance(probs).gather(1, predicted.unsqueeze(1)).squeeze(1)


def variation_ratio(probs: Tensor) -> Tensor:
    """Returns the share of passes that do not predict the most predicted class, 1 - max_k votes_k / T (Freeman 1965).

    Args:
        probs (`Tensor`): `[T, N, K]`.

    Returns:
        `[N]`, between 0 and 1 - 1/K.
    """
    votes = torch.nn.functional.one_hot(probs.argmax(dim=-1), probs.shape[-1]).sum(dim=0)
    return 1.0 - votes.amax(dim=-1).to(probs.dtype) / probs.shape[0]
