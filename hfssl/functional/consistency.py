"""Computes targets, weights and losses of consistency regularization; pure functions of tensors.

A unit is one prediction (of a text, or of one of its labels), `[M, K]`; see `hfssl.tasks.base`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "align",
    "class_scaled",
    "entropy_hinge",
    "fairness_loss",
    "flexmatch_thresholds",
    "hard_targets",
    "kl_divergence",
    "sharpen",
    "squared_difference",
    "truncated_gaussian_weights",
]

TINY = 1e-12


def hard_targets(probs: Tensor) -> Tensor:
    """Returns one-hot targets of the most probable classes, `[M, K]`."""
    return F.one_hot(probs.argmax(-1), probs.shape[-1]).to(probs.dtype)


def sharpen(probs: Tensor, temperature: float) -> Tensor:
    """Returns p^(1/T) / sum p^(1/T), `[M, K]` (Berthelot et al. 2019, equation 7).

    With p = softmax(z) this equals softmax(z / T), the form of UDA (Xie et al. 2020, section 3.1).

    Example:
        >>> sharpen(torch.tensor([[0.8, 0.2]]), 0.5).round(decimals=3).tolist()
        [[0.9409999847412109, 0.05900000035762787]]
    """
    return (probs.clamp(min=TINY).log() / temperature).softmax(-1)


def squared_difference(probs: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Returns the mean over units of ||p - q||^2 / K (Laine & Aila 2017, algorithm 1), a scalar.

    Args:
        probs (`Tensor`): `[M, K]` predictions that learn.
        target (`Tensor`): `[M, K]`.
        weights (`Tensor`, *optional*): `[M]`; the mean is over all M units.
    """
    error = (probs - target).square().mean(-1)
    return (error if weights is None else weights * error).mean()


def kl_divergence(target: Tensor, logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """Returns the mean over units of KL(q || softmax(z)), in nats, a scalar; see `squared_difference`."""
    entropy = -(target * target.clamp(min=TINY).log()).sum(-1)
    divergence = -(target * logits.log_softmax(-1)).sum(-1) - entropy
    return (divergence if weights is None else weights * divergence).mean()


def entropy_hinge(logits: Tensor, margin: float) -> Tensor:
    """Returns the mean over units of max(0, H(p) - margin), in nats (Chen et al. 2020, equation 8, gamma = margin)."""
    entropy = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)
    return (entropy - margin).clamp(min=0).mean()


def align(probs: Tensor, target: Tensor, current: Tensor) -> Tensor:
    """Returns norm(q * target / current), `[M, K]`: distribution alignment (Berthelot et al. 2020, section 3.1).

    Args:
        probs (`Tensor`): `[M, K]`.
        target (`Tensor`): `[K]` class prior that the predictions are moved to.
        current (`Tensor`): `[K]` class prior of the predictions.
    """
    moved = probs * (target / current.clamp(min=TINY))
    return moved / moved.sum(-1, keepdim=True)


def class_scaled(threshold: Tensor | float, class_probs: Tensor) -> Tensor:
    """Returns a threshold for each class, `[K]`: threshold * p / max p (Wang et al. 2023, equation 8)."""
    return threshold * class_probs / class_probs.max()


def flexmatch_thresholds(counts: Tensor, unused: Tensor, threshold: float) -> Tensor:
    """Returns FlexMatch's threshold for each class, `[K]` (Zhang et al. 2021, equations 7, 11 and 12).

    beta = counts / max(max counts, unused), then threshold * beta / (2 - beta), the convex mapping of the paper.

    Args:
        counts (`Tensor`): `[K]` number of units whose stored label is a class.
        unused (`Tensor`): Number of units without a stored label, a scalar.
        threshold (`float`): Threshold of a class that is learned best.

    Example:
        >>> [round(x, 3) for x in flexmatch_thresholds(torch.tensor([4.0, 2.0]), torch.tensor(1.0), 0.9).tolist()]
        [0.9, 0.3]
    """
    beta = counts / torch.maximum(counts.max(), unused).clamp(min=1)
    return threshold * beta / (2 - beta)


def truncated_gaussian_weights(confidence: Tensor, mean: Tensor, variance: Tensor, n_sigma: float) -> Tensor:
    """Returns weights `[M]`: 1 from the mean on, below it exp(-(c - mean)^2 / (2 var / n^2)).

    This is SoftMatch's truncated Gaussian (Chen et al. 2023, equation 5).

    Args:
        confidence (`Tensor`): `[M]` largest probability of each unit.
        mean (`Tensor`): Mean confidence, a scalar.
        variance (`Tensor`): Variance of the confidence, a scalar.
        n_sigma (`float`): Factor n; the paper's code uses 2.
    """
    distance = (confidence - mean).clamp(max=0)
    return torch.exp(-(distance**2) / (2 * variance.clamp(min=TINY) / n_sigma**2))


def fairness_loss(
    probs: Tensor, accepted: Tensor, class_probs: Tensor, histogram: Tensor, batch_histogram: Tensor | None = None
) -> Tensor:
    """Returns H(a, b) in nats, a = norm(class_probs / histogram), b = norm(mean p / its histogram); a scalar.

    This is the self-adaptive fairness of FreeMatch (Wang et al. 2023, equations 9 to 11). The mean and the histogram
    of b are over accepted units. Minimising H(a, b) moves b to a, which is the aim that the paper states; equation 11
    prints -H(a, b), which moves them apart. Classes that no accepted unit has are left out of the sum (their b is 0
    and has no gradient); without an accepted unit the loss is 0.

    Args:
        probs (`Tensor`): `[M, K]` predictions that learn (the strong view).
        accepted (`Tensor`): `[M]` bool or 0/1: which units passed the threshold.
        class_probs (`Tensor`): `[K]` moving average of the mean prediction.
        histogram (`Tensor`): `[K]` moving average of the shares of the predicted classes.
        batch_histogram (`Tensor`, *optional*): `[K]` shares of the predicted classes among accepted units; by default
            those of `probs`.
    """
    mask = accepted.to(probs.dtype)
    kept = mask.sum()
    mean = (probs * mask[:, None]).sum(0) / kept.clamp(min=1)
    if batch_histogram is None:
        batch_histogram = (hard_targets(probs) * mask[:, None]).sum(0) / kept.clamp(min=1)
    a, b = (_normalised_ratio(*pair) for pair in ((class_probs, histogram), (mean, batch_histogram)))
    terms = a.detach() * b.clamp(min=TINY).log()
    return -torch.where(batch_histogram > 0, terms, torch.zeros_like(terms)).sum()


def _normalised_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Returns numerator / denominator scaled to a sum of 1; a class with denominator 0 gets 0."""
    known = denominator > 0
    ratio = torch.where(known, numerator / torch.where(known, denominator, 1.0), torch.zeros_like(numerator))
    return ratio / ratio.sum().clamp(min=TINY)
