"""Log of the loss: its components between two logs, and the first step whose loss was not finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hfssl.errors import TrainingError
from hfssl.models.checkpoints import last_complete_checkpoint

__all__ = ["LossLog", "loss_terms"]


class LossLog:
    """Adds up the components of the loss on the device; only the collective methods below wait for the device.

    Args:
        device (`torch.device`): Device of the losses.
        gather (`Callable[[Tensor], Tensor]`): Function that concatenates a tensor `[N]` of all ranks, as
            `Accelerator.gather` does.

    Attributes:
        notes (`dict[str, float]`): Numbers that are added to the next log, for example the composition of a round of
            self-training.

    Example:
        >>> log = LossLog(torch.device("cpu"), gather=lambda tensor: tensor)
        >>> log.add({"loss/labeled": torch.tensor(1.0)})
        >>> log.add({"loss/labeled": torch.tensor(2.0)})
        >>> log.means()
        {'loss/labeled': 1.5}
    """

    def __init__(self, device: torch.device, gather: Callable[[Tensor], Tensor]):
        self._device, self._gather = device, gather
        self._totals: dict[str, Tensor] = {}
        self._batches = 0
        self._first_bad_step = torch.tensor(-1, device=device)
        self.notes: dict[str, float] = {}

    def __bool__(self) -> bool:
        """Returns whether components were added since the last `means`."""
        return self._batches > 0

    def add(self, components: Mapping[str, Tensor], share: Tensor | float = 1.0) -> None:
        """Adds the components of one batch.

        Args:
            components (`Mapping[str, Tensor]`): Scalars by name.
            share (`Tensor` or `float`, defaults to 1.0): Factor on each scalar.
        """
        for name, value in components.items():
            total = self._totals.get(name, torch.zeros((), device=self._device))
            self._totals[name] = total + value.detach() * share
        self._batches += 1

    def means(self) -> dict[str, float]:
        """Returns the mean of each component over the batches of all ranks, and resets the sums.

        Collective: every rank must call this.
        """
        means = {name: (self._gather(total).mean() / self._batches).item() for name, total in self._totals.items()}
        self._totals, self._batches = {}, 0
        notes, self.notes = self.notes, {}
        return means | notes

    def check(self, loss: Tensor, step: int) -> None:
        """Records `step` if `loss` is the first that is not finite, without waiting for the device."""
        bad = (self._first_bad_step < 0) & ~torch.isfinite(loss)
        self._first_bad_step = torch.where(bad, step, self._first_bad_step)

    def raise_if_not_finite(self, max_steps: int, output_dir: str | Path) -> None:
        """Stops training on all ranks if the loss of a step was not finite on one of them.

        Collective: every rank must call this.

        Args:
            max_steps (`int`): Number of steps of the run.
            output_dir (`str` or `Path`): Folder of the run's checkpoints.

        Raises:
            TrainingError: A loss was not finite; the message names the first such step and the last good checkpoint.
        """
        steps = self._gather(self._first_bad_step.view(1))  # [ranks]
        bad = steps[steps >= 0]
        if not len(bad):
            return
        kept = last_complete_checkpoint(output_dir)
        where = f"the last good state is in {kept}" if kept else "no checkpoint had been written yet"
        raise TrainingError(
            f"Expected a finite loss, got NaN or infinity at step {int(bad.min())} of {max_steps}; {where}. "
            "Lower `learning_rate`, set `max_grad_norm`, or train in float32."
        )


def loss_terms(parts: Any, objective: str) -> list[Tensor]:
    """Returns the entries `loss/...` of what an objective returned; the devices are not waited for.

    Args:
        parts (`Any`): What `loss` returned.
        objective (`str`): Name of the objective's class, for messages.

    Raises:
        TrainingError: It is no dict of scalar tensors, or holds no such entry.

    Example:
        >>> loss_terms({"loss/labeled": torch.tensor(1.0), "agreement": torch.tensor(0.5)}, "MyObjective")
        [tensor(1.)]
    """
    expected = f"Expected a dict of scalar tensors with an entry 'loss/...' from {objective}.loss, got"
    if not isinstance(parts, Mapping):
        raise TrainingError(f"{expected} a {type(parts).__name__}: return {{'loss/labeled': ...}}, for example.")
    for name, value in parts.items():
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            kind = f"shape {list(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
            raise TrainingError(f"{expected} {kind} for '{name}': take its mean, and no .item().")
    terms = [value for name, value in parts.items() if name.startswith("loss/")]
    if not terms:
        raise TrainingError(f"{expected} {', '.join(parts) or 'no entry'}: rename what is to be minimised.")
    return terms
