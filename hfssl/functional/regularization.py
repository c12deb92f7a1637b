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

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hfssl.models.loading import body_and_head_parameters
from hfssl.runtime.seeding import numpy_generator

__all__ = [
    "StartingPoint",
    "WeightAverage",
    "draw_mixup",
    "mean_of_weights",
    "mixup_cross_entropy",
    "r_drop_loss",
]


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


class StartingPoint:
    """The body's trained weights as they were before training, w0. The head has none that is worth keeping.

    Args:
        model (`nn.Module`): As it is before training; its trained weights are copied.
    """

    def __init__(self, model: nn.Module):
        body, _ = body_and_head_parameters(model)
        parameters = dict(model.named_parameters())
        self.start = {name: parameters[name].detach().clone() for name in body if parameters[name].requires_grad}

    def penalty(self, model: nn.Module, alpha: float) -> Tensor:
        """L2-SP: alpha / 2 * ||w - w0||^2 (Li et al. 2018, equation 3), the scalar to add to the loss.

        Weight decay draws the head to 0 (the paper's beta). The model may be wrapped for several devices.
        """
        parameters = {name.removeprefix("module."): parameter for name, parameter in model.named_parameters()}
        ways = [parameters[name] - start.to(parameters[name].device) for name, start in self.start.items()]
        return alpha / 2 * torch.stack([way.square().sum() for way in ways]).sum()

    @torch.no_grad()
    def interpolate(self, model: nn.Module, alpha: float) -> None:
        """WiSE-FT: w <- (1 - alpha) w0 + alpha w (Wortsman et al. 2022, equation 1).

        Of a LoRA adapter, whose weights are B A with B = 0 to begin with, B alone goes back: that is alpha B A, the
        same interpolation of what they are merged into. Both factors half way would leave a quarter.
        """
        parameters = dict(model.named_parameters())
        for name, start in self.start.items():
            if "lora_A" not in name:
                parameters[name].lerp_(start.to(parameters[name].device), 1 - alpha)


@torch.no_grad()
def mean_of_weights(models: Sequence[nn.Module]) -> nn.Module:
    """A model soup: the mean of the weights of models that started from the same ones (Wortsman et al. 2022).

    Args:
        models: At least one, of one architecture; they are left as they are. Buffers are those of the first.
    """
    soup = deepcopy(models[0])
    others = [dict(model.named_parameters()) for model in models]
    for name, parameter in soup.named_parameters():
        parameter.copy_(torch.stack([weights[name].to(parameter.device) for weights in others]).mean(dim=0))
    return soup


class WeightAverage:
    """Exponential moving average of the trained weights: a steadier model than the last step's.

    After t steps each average is decayed by min(decay, t / (t + 9)), so that the first steps, far from where training
    ends, are soon forgotten (Tarvainen & Valpola 2017 ramp their decay for the same reason).

    Args:
        model (`nn.Module`): As it is before training.
        decay (`float`): At least 0, below 1.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.average = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Takes in the weights after `step` steps, counted from 1."""
        decay = min(self.decay, step / (step + 9))
        parameters = dict(model.named_parameters())
        for name, average in self.average.items():
            average.lerp_(parameters[name].to(average.device), 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Puts the averages in the place of the weights."""
        parameters = dict(model.named_parameters())
        for name, average in self.average.items():
            parameters[name].copy_(average)

    def state_dict(self) -> dict[str, Any]:
        """Name -> average."""
        return {name: average.clone() for name, average in self.average.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`."""
        self.average = deepcopy(state)
