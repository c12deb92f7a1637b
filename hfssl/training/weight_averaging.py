"""Weights other than those of the last step: EMA, WiSE-FT, the starting point of L2-SP, model soups."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from hfssl.models.introspection import body_and_head_parameters

__all__ = ["FinalWeights", "StartingPoint", "WeightAverage", "mean_of_weights"]


class StartingPoint:
    """Stores the body's weights before training, w0. The head's are random and are not stored.

    Args:
        model (`nn.Module`): The model before training; its trainable weights are copied.
    """

    def __init__(self, model: nn.Module):
        body, _ = body_and_head_parameters(model)
        parameters = dict(model.named_parameters())
        self.start = {name: parameters[name].detach().clone() for name in body if parameters[name].requires_grad}

    def penalty(self, model: nn.Module, alpha: float) -> Tensor:
        """Returns the scalar that L2-SP adds to the loss: alpha / 2 * ||w - w0||^2 (Li et al. 2018, equation 3).

        Weight decay draws the head to 0 (the paper's beta).

        Args:
            model (`nn.Module`): The model in training; it may be wrapped for several devices.
            alpha (`float`): Factor of the penalty, at least 0.
        """
        parameters = {name.removeprefix("module."): parameter for name, parameter in model.named_parameters()}
        ways = [parameters[name] - start.to(parameters[name].device) for name, start in self.start.items()]
        return alpha / 2 * torch.stack([way.square().sum() for way in ways]).sum()

    @torch.no_grad()
    def interpolate(self, model: nn.Module, alpha: float) -> None:
        """Interpolates as WiSE-FT does: w <- (1 - alpha) w0 + alpha w (Wortsman et al. 2022, equation 1).

        A LoRA adapter has the weights B A, with B = 0 at the start. Of these only B is interpolated, which gives alpha
        B A: the same interpolation of the merged weights. Interpolating both factors would give alpha^2 B A.

        Args:
            model (`nn.Module`): The model without wrappers; it is changed in place.
            alpha (`float`): Weight of the trained weights, above 0 and at most 1.
        """
        parameters = dict(model.named_parameters())
        for name, start in self.start.items():
            if "lora_A" not in name:
                parameters[name].lerp_(start.to(parameters[name].device), 1 - alpha)


@torch.no_grad()
def mean_of_weights(models: Sequence[nn.Module]) -> nn.Module:
    """Returns a model soup: the mean of the weights of models with the same start (Wortsman et al. 2022).

    Args:
        models (`Sequence[nn.Module]`): At least one model, all of one architecture. Buffers are those of the first.
    """
    soup = deepcopy(models[0])
    others = [dict(model.named_parameters()) for model in models]
    for name, parameter in soup.named_parameters():
        parameter.copy_(torch.stack([weights[name].to(parameter.device) for weights in others]).mean(dim=0))
    return soup


class WeightAverage:
    """Averages the trained weights exponentially over the steps (EMA).

    The decay after t steps is min(decay, t / (t + 9)), so that the weights of the first steps, far from the final
    ones, soon count for little (Tarvainen & Valpola 2017 ramp their decay for the same reason).

    Args:
        model (`nn.Module`): The model before training.
        decay (`float`): Decay per step, at least 0, below 1.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.average = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Updates the averages with the weights after `step` steps, counted from 1."""
        decay = min(self.decay, step / (step + 9))
        parameters = dict(model.named_parameters())
        for name, average in self.average.items():
            average.lerp_(parameters[name].to(average.device), 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Replaces the model's weights by the averages."""
        parameters = dict(model.named_parameters())
        for name, average in self.average.items():
            parameters[name].copy_(average)

    def state_dict(self) -> dict[str, Any]:
        """Returns parameter name -> average."""
        return {name: average.clone() for name, average in self.average.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`."""
        self.average = {name: state[name].to(average.device, copy=True) for name, average in self.average.items()}


class FinalWeights:
    """Computes averaged or interpolated weights that replace those of the last step.

    Args:
        model (`nn.Module`): The model before the first step.
        average_decay (`float`): Decay of `WeightAverage`; 0 turns averaging off.
        wise_ft_alpha (`float`): Factor of `StartingPoint.interpolate`; 1 turns interpolation off.
    """

    def __init__(self, model: nn.Module, average_decay: float, wise_ft_alpha: float):
        self._average = WeightAverage(model, average_decay) if average_decay > 0 else None
        self._start = StartingPoint(model) if wise_ft_alpha < 1 else None
        self._alpha = wise_ft_alpha

    def update(self, model: nn.Module, step: int) -> None:
        """Updates the averages with the weights after `step` steps, counted from 1."""
        if self._average is not None:
            self._average.update(model, step)

    def put_into(self, model: nn.Module) -> None:
        """Replaces the weights of the last step in `model`."""
        if self._average is not None:
            self._average.copy_to(model)
        if self._start is not None:
            self._start.interpolate(model, self._alpha)

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages.

        The starting point is not saved: it consists of the weights that the model was built with.
        """
        return {} if self._average is None else self._average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`."""
        if self._average is not None:
            self._average.load_state_dict(state)
