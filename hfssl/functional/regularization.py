"""Computes regularisers for training on few labels; each is an option, and none is on by default.

| option | source |
|---|---|
| `r_drop_alpha` | R-Drop (Wu et al. 2021): predictions of two dropout views of a row are pulled together |
| `mixup_alpha` | mixup (Zhang et al. 2018) of the head's input, as senMixup (Guo et al. 2019) |
| `l2_sp_alpha` | L2-SP (Li et al. 2018): stay near the weights that training started from |
| `layerwise_lr_decay` | ULMFiT's discriminative rates (Howard & Ruder 2018); in `hfssl.training.learning_rates` |
| `weight_average_decay` | averaged weights (Polyak & Juditsky 1992; Tarvainen & Valpola 2017) |
| `wise_ft_alpha` | WiSE-FT (Wortsman et al. 2022): end between the starting weights and the trained ones |
| `model_soup` | model soups (Wortsman et al. 2022): the mean of several models' weights |
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hfssl.runtime.seeding import numpy_generator

Loss = Callable[[Tensor, Tensor], Tensor]

__all__ = ["draw_mixup", "mixup_loss", "r_drop_loss", "symmetric_divergence"]


def r_drop_loss(
    first: Tensor,
    second: Tensor,
    labels: Tensor,
    alpha: float,
    *,
    loss: Loss = F.cross_entropy,
    divergence: Loss | None = None,
) -> Tensor:
    """Returns half of R-Drop's loss (Wu et al. 2021, equation 4), so that alpha = 0 is the ordinary cross-entropy.

    (CE(first) + CE(second)) / 2 + alpha / 2 * (KL(p1 || p2) + KL(p2 || p1)) / 2, means over the rows, in nats.

    Args:
        first (`Tensor`): `[B, K]` logits under one dropout mask.
        second (`Tensor`): `[B, K]` logits of the same rows under another dropout mask.
        labels (`Tensor`): `[B]`.
        alpha (`float`): Weight of the divergence; the paper uses 0.5 to 5.
        loss (`Loss`, defaults to `F.cross_entropy`): (logits, labels) -> mean loss; default: cross-entropy.
        divergence (`Loss`, *optional*): (logits, logits) -> sum of the two divergences; `symmetric_divergence` by
            default.
    """
    divergence = symmetric_divergence if divergence is None else divergence
    likelihood = sum(loss(logits, labels) for logits in (first, second))
    return likelihood / 2 + alpha * divergence(first, second) / 4


def symmetric_divergence(first: Tensor, second: Tensor) -> Tensor:
    """Returns KL(p1 || p2) + KL(p2 || p1) of softmax distributions, mean over rows, in nats; logits `[B, K]`."""
    one, other = first.log_softmax(-1), second.log_softmax(-1)
    return sum(F.kl_div(q, p, log_target=True, reduction="batchmean") for p, q in ((one, other), (other, one)))


def mixup_loss(
    logits: Tensor, labels: Tensor, partners: Tensor, share: float, *, loss: Loss = F.cross_entropy
) -> Tensor:
    """Returns share * loss(label) + (1 - share) * loss(partner's label) (Zhang et al. 2018, section 2).

    Args:
        logits (`Tensor`): `[B, K]` of mixed rows.
        labels (`Tensor`): `[B]`.
        partners (`Tensor`): `[B]` row numbers that each row was mixed with.
        share (`float`): Lambda in [0, 1], the weight of the row itself.
        loss (`Loss`, defaults to `F.cross_entropy`): (logits, labels) -> mean loss; default: cross-entropy.
    """
    return share * loss(logits, labels) + (1 - share) * loss(logits, labels[partners])


def draw_mixup(size: int, alpha: float, seed: int, step: int) -> tuple[float, Tensor]:
    """Draws lambda ~ Beta(alpha, alpha), at least 1/2 (Berthelot et al. 2019), and a partner for each row.

    The result depends on seed and step only, so that a resumed run draws the same numbers as an uninterrupted one.

    Returns:
        lambda, and the row numbers of the partners `[size]`.
    """
    generator = numpy_generator(seed, "mixup", step)
    share = float(generator.beta(alpha, alpha))
    return max(share, 1 - share), torch.from_numpy(generator.permutation(size))
