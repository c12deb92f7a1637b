"""Computes loss terms; pure functions of tensors."""

from __future__ import annotations

import torch
from torch.nn import functional as F

__all__ = [
    "pair_similarity_loss",
    "same_class",
    "soft_cross_entropy",
    "supervised_contrastive_loss",
]


def soft_cross_entropy(logits: torch.Tensor, target_probs: torch.Tensor) -> torch.Tensor:
    """Returns H(target, softmax(logits)) of each row, in nats: `[N, K]`, `[N, K]` -> `[N]`.

    With a one-hot target this is the ordinary cross-entropy. Gradients flow into `logits` only.
    """
    return -(target_probs.detach() * F.log_softmax(logits, dim=-1)).sum(dim=-1)


def same_class(labels: torch.Tensor) -> torch.Tensor:
    """Returns which pairs of rows have the same class: `[B]` -> `[B, B]` bool."""
    return labels[:, None] == labels[None, :]


def pair_similarity_loss(features: torch.Tensor, alike: torch.Tensor) -> torch.Tensor:
    """Pulls the cosine of two rows to 1 within a class and to 0 between classes; returns a scalar.

    The loss is the mean of (cos(z_i, z_j) - 1)^2 over the pairs of one class and the mean of cos(z_i, z_j)^2 over the
    other pairs, half each. This is the loss of SetFit (Tunstall et al. 2022, section 3.1) with equally many pairs of
    both kinds, over all pairs of the batch. Where the batch has pairs of only one kind, the loss is their mean; a
    batch of one row gives 0.

    Args:
        features (`torch.Tensor`): `[B, D]`.
        alike (`torch.Tensor`): `[B, B]`, whether two rows have the same class (`same_class`), or target cosines in [0,
            1].
    """
    normalised = F.normalize(features, dim=-1)
    alike = alike.float()
    others = 1 - torch.eye(len(alike), device=features.device)
    error = (normalised @ normalised.T - alike).square()
    means = [(error * kind).sum() / kind.sum().clamp(min=1) for kind in (alike * others, 1 - alike) if kind.sum() > 0]
    return torch.stack(means).mean() if means else 0 * error.sum()


def supervised_contrastive_loss(features: torch.Tensor, alike: torch.Tensor, temperature: float) -> torch.Tensor:
    """Pulls rows of one class together and pushes all others away; returns a scalar in nats.

    L_out of Khosla et al. (2020), equation 2. Each anchor contributes the mean over its positives of -log(exp(z_i z_p
    / T) / sum_{a != i} exp(z_i z_a / T)), with z normalised to length 1. The loss is the mean over the anchors with a
    positive; a batch without any gives 0.

    Args:
        features (`torch.Tensor`): `[B, D]`.
        alike (`torch.Tensor`): `[B, B]` bool, whether two rows have the same class, or weights in [0, 1].
        temperature (`float`): Temperature T, above 0.
    """
    normalised = F.normalize(features, dim=-1)
    itself = torch.eye(len(alike), dtype=torch.bool, device=features.device)
    similarity = (normalised @ normalised.T / temperature).masked_fill(itself, -torch.inf)
    log_probs = similarity.log_softmax(dim=-1).masked_fill(itself, 0.0)  # -inf * 0 would be NaN
    positive = alike.masked_fill(itself, 0)
    count = positive.sum(dim=-1)
    per_anchor = -(log_probs * positive).sum(dim=-1) / torch.where(count > 0, count, 1)
    return per_anchor.sum() / (count > 0).sum().clamp(min=1)
