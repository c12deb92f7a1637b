"""What keeps a model from learning a few labels by heart: each an option, none a default.

| option | source |
|---|---|
| `r_drop_alpha` | R-Drop (Wu et al. 2021): two dropout views of a row shall agree |
| `mixup_alpha` | mixup (Zhang et al. 2018) of the head's input, as senMixup (Guo et al. 2019) |
| `l2_sp_alpha` | L2-SP (Li et al. 2018): stay near the weights that training started from |
| `layerwise_lr_decay` | ULMFiT's discriminative rates (Howard & Ruder 2018); in `hfssl.training.learning_rates` |
| `weight_average_decay` | averaged weights (Polyak & Juditsky 1992; Tarvainen & Valpola 2017) |
| `wise_ft_alpha` | WiSE-FT (Wortsman et al. 2022): end between the starting weights and the trained ones |
| `model_soup` | model soups (Wortsman et al. 2022): the mean of several models' weights |
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hfssl.runtime.seeding import numpy_generator

__all__ = ["draw_mixup", "mixup_cross_entropy", "r_drop_loss"]


def r_drop_loss(first: Tensor, second: Tensor, labels: Tensor, alpha: float, label_smoothing: float = 0.0) -> Tensor:
    """Half of R-Drop's loss (Wu et al. 2021, equation 4), so that alpha = 0 is the ordinary cross-entropy.

    (CE(first) + CE(second)) / 2 + alpha / 2 * (KL(p1 || p2) + KL(p2 || p1)) / 2, means over the rows, in nats.

    Args:
        first: `[B, K]` logits under one dropout mask.
        second: `[B, K]` logits of the same rows under another.
        labels: `[B]`.
        alpha: weight of the divergence; the paper has 0.5 to 5.
        label_smoothing: of both cross-entropies.
    """
    likelihood = sum(F.cross_entropy(logits, labels, label_smoothing=label_smoothing) for logits in (first, second))
    one, other = first.log_softmax(-1), second.log_softmax(-1)
    divergence = sum(F.kl_div(q, p, log_target=True, reduction="batchmean") for p, q in ((one, other), (other, one)))
    return likelihood / 2 + alpha * divergence / 4


def mixup_cross_entropy(
    logits: Tensor, labels: Tensor, partners: Tensor, share: float, label_smoothing: float = 0.0
) -> Tensor:
    """share * CE(label) + (1 - share) * CE(partner's label) (Zhang et al. 2018, section 2).

    Args:
        logits: `[B, K]` of mixed rows.
        labels: `[B]`.
        partners: `[B]` row numbers that each row was mixed with.
        share: lambda, what is left of the row itself, in [0, 1].
        label_smoothing: of both cross-entropies.
    """
    own = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return share * own + (1 - share) * F.cross_entropy(logits, labels[partners], label_smoothing=label_smoothing)


def draw_mixup(size: int, alpha: float, seed: int, step: int) -> tuple[float, Tensor]:
    """lambda ~ Beta(alpha, alpha), turned to be at least 1/2 (Berthelot et al. 2019), and a partner for each row.

    A function of seed and step, so that a resumed run draws what one that was never stopped would have.

    Returns:
        lambda, and `[size]` row numbers.
    """
    generator = numpy_generator(seed, "mixup", step)
    share = float(generator.beta(alpha, alpha))
    return max(share, 1 - share), torch.from_numpy(generator.permutation(size))
