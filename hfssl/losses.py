"""Loss terms as pure functions of tensors."""

from __future__ import annotations

import torch
from torch.nn import functional as F

__all__ = ["soft_cross_entropy", "weighted_pseudo_label_loss"]


def soft_cross_entropy(logits: torch.Tensor, target_probs: torch.Tensor) -> torch.Tensor:
    """H(target, softmax(logits)) of each row, in nats: `[N, K]`, `[N, K]` -> `[N]`.

    With a one-hot target this is the ordinary cross-entropy. Gradients flow into `logits` only.
    """
    return -(target_probs.detach() * F.log_softmax(logits, dim=-1)).sum(dim=-1)


def weighted_pseudo_label_loss(
    logits: torch.Tensor, target_probs: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """(1/U) sum_u w_u H(target_u, softmax(logits_u)), a scalar.

    Mukherjee & Awadallah (2020), equation 10, with the mean over the *whole* batch (not over the sum of the weights),
    so that a batch of doubtful rows moves the model less.

    Args:
        logits: `[U, K]`.
        target_probs: `[U, K]`, one-hot or soft.
        weights: `[U]`, not negative.
    """
    return (weights * soft_cross_entropy(logits, target_probs)).mean()
