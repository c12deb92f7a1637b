"""A teacher whose weights are the moving average of the student's; it holds adapter tensors only under LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["EmaTeacher"]


class EmaTeacher:
    """Averages the trained weights over the steps and computes with them (Tarvainen & Valpola 2017, section 2).

    The average starts at the student's weights. Its decay after t steps is min(decay, 1 - 1 / (t + 1)), as in the
    authors' code: while the student changes fast, the teacher is the mean of all its weights so far. Only weights that
    are trained are kept; the teacher shares the others with the student.

    Args:
        decay (`float`): Decay per step, in [0, 1].

    Attributes:
        average (`dict[str, Tensor]`, *optional*): Parameter name -> averaged weight; `None` before the first use.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.average: dict[str, Tensor] | None = None

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves the average toward the weights after `step` steps, counted from 1."""
        decay = min(self.decay, 1 - 1 / (step + 1))
        weights = dict(_plain(model).named_parameters())
        for name, average in self._weights(model).items():
            average.lerp_(weights[name].to(average.dtype), 1 - decay)

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[nn.Module]:
        """Yields a model that computes with the average instead of the trained weights; `model` does not change.

        Args:
            model (`nn.Module`): The student; it may be wrapped for several devices.
        """
        yield _Teacher(_plain(model), self._weights(model))

    def _weights(self, model: nn.Module) -> dict[str, Tensor]:
        trained = {name: weight for name, weight in _plain(model).named_parameters() if weight.requires_grad}
        if self.average is None:
            self.average = {name: weight.detach().clone() for name, weight in trained.items()}
        else:  # after a restart the average is on the CPU
            self.average = {name: self.average[name].to(weight.device) for name, weight in trained.items()}
        return self.average

    def commit(self) -> None:
        """Does nothing: `update` needs the model."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the average."""
        return {"average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`."""
        self.average = state["average"]


class _Teacher(nn.Module):
    """Computes with other weights than those that the model holds."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]):
        super().__init__()
        self.model, self.average = model, weights

    def forward(self, **inputs: Any) -> Any:
        return functional_call(self.model, self.average, (), inputs)


def _plain(model: nn.Module) -> nn.Module:
    """Returns the model without the wrapper for several devices."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
