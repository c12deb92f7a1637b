"""Running numbers about the pool that must survive a restart and be the same on all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from hfssl.runtime.distributed import gather_over_ranks, total_over_ranks
from hfssl.training.stateful import Stateful

__all__ = ["MovingAverage", "RowBank", "Statistic", "mean", "mean_and_variance"]


class Statistic(Stateful, Protocol):
    """Describes a `Stateful` part that collects numbers during a step and takes them over after it."""

    def commit(self) -> None:
        """Takes the numbers of the last step over. Collective: every rank must call this."""


def mean(total: Tensor, squares: Tensor, count: Tensor) -> Tensor:
    """Returns the mean of each column, `[D]`."""
    return total / count


def mean_and_variance(total: Tensor, squares: Tensor, count: Tensor) -> Tensor:
    """Returns the means of D columns and then their unbiased variances, `[2 D]`."""
    average = total / count
    return torch.cat([average, (squares - count * average**2) / (count - 1).clamp(min=1)])


class MovingAverage:
    """Averages a statistic of batches exponentially over the steps: v <- momentum v + (1 - momentum) batch.

    The current value includes all units of the current step that were observed so far, on all ranks. So without
    gradient accumulation the batch itself counts before it is judged, as in the papers; with accumulation, the batches
    of the same step that come later do not. The value of the last step is replaced in `commit`.

    Args:
        momentum (`float`): Weight of the past, in [0, 1).
        start (`Callable[[int], Tensor]`, *optional*): Function from the number of columns D to the first value; by
            default the first batch's statistic is the first value.
        statistic (`Callable`, defaults to `mean`): Function of sums `[D]`, sums of squares `[D]` and the count.
    """

    def __init__(
        self,
        momentum: float,
        start: Callable[[int], Tensor] | None = None,
        statistic: Callable[[Tensor, Tensor, Tensor], Tensor] = mean,
    ):
        self.momentum, self.start, self.statistic = momentum, start, statistic
        self.value: Tensor | None = None
        self._sums: Tensor | None = None

    def observe(self, values: Tensor) -> Tensor:
        """Adds units of the current step and returns the value. Collective: every rank must call this.

        Args:
            values (`Tensor`): `[M, D]`, without gradient.
        """
        values = values.detach().float()
        count = values.new_full((1,), len(values))
        sums = total_over_ranks(torch.cat([values.sum(0), values.square().sum(0), count]))
        self._sums = sums if self._sums is None else self._sums + sums
        if self.value is None and self.start is not None:
            self.value = self.start(values.shape[1]).to(values)
        return self.current()

    def current(self) -> Tensor:
        """Returns the value with the units of the current step."""
        if self._sums is None:
            if self.value is None:
                raise ValueError("Expected observe() before current(): there is no value yet.")
            return self.value
        size = (len(self._sums) - 1) // 2
        fresh = self.statistic(self._sums[:size], self._sums[size:-1], self._sums[-1])
        if self.value is None:
            return fresh
        return self.momentum * self.value.to(fresh) + (1 - self.momentum) * fresh

    def commit(self) -> None:
        """Takes the units of the last step over."""
        if self._sums is not None:
            self.value, self._sums = self.current(), None

    def state_dict(self) -> dict[str, Any]:
        """Returns the value."""
        return {"value": None if self.value is None else self.value.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`."""
        self.value = state["value"]


class RowBank:
    """Keeps numbers for each unit of the pool, updated after each step with the units of all ranks.

    Args:
        fill (`float` or `int`): Value of a unit that was never seen; an integer makes an integer bank.
        update (`Callable`, *optional*): Function (old `[M, D]`, fresh `[M, D]`, earlier visits `[M, 1]`) -> new; by
            default the fresh values. A unit that occurs twice in a step has the mean of its values as the fresh one
            (integers: the last one).

    Attributes:
        values (`Tensor`): `[N, D]`.
        visits (`Tensor`): `[N]` int64, number of steps that held the unit.
    """

    def __init__(self, fill: float | int, update: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None):
        self.fill, self.update = fill, update
        self.values: Tensor | None = None
        self.visits: Tensor | None = None
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def prepare(self, units: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Makes the bank at the first batch, moves a restored one to the device, and returns values and visits."""
        if self.values is None or self.visits is None:
            kind = torch.int64 if isinstance(self.fill, int) else torch.float32
            self.values = torch.full((units, columns), self.fill, dtype=kind, device=device)
            self.visits = torch.zeros(units, dtype=torch.int64, device=device)
        elif self.values.device != device:
            self.values, self.visits = self.values.to(device), self.visits.to(device)
        return self.values, self.visits

    def put(self, units: Tensor, values: Tensor, accepted: Tensor | None = None) -> None:
        """Notes values of the current step.

        Args:
            units (`Tensor`): `[M]` numbers of the units.
            values (`Tensor`): `[M, D]`.
            accepted (`Tensor`, *optional*): `[M]` bool; the values of the others are not taken over.
        """
        accepted = torch.ones_like(units, dtype=torch.bool) if accepted is None else accepted
        self._pending.append((units, values.detach(), accepted))

    def commit(self) -> None:
        """Takes the values of the last step over. Collective: every rank must call this."""
        if not self._pending or self.values is None or self.visits is None:
            return
        columns = zip(*self._pending, strict=True)
        units, values, accepted = (gather_over_ranks(torch.cat(list(parts))) for parts in columns)
        self._pending = []
        units, values = units[accepted], values[accepted]
        if not self.values.is_floating_point():
            self.values[units] = values.to(self.values)
        else:
            known, places = units.unique(return_inverse=True)
            sums = torch.zeros(len(known), values.shape[1], device=values.device).index_add_(0, places, values.float())
            fresh = sums / places.bincount(minlength=len(known))[:, None].clamp(min=1)
            if self.update is not None:
                fresh = self.update(self.values[known], fresh, self.visits[known][:, None])
            self.values[known] = fresh
        self.visits[units.unique()] += 1

    def state_dict(self) -> dict[str, Any]:
        """Returns values and visits."""
        parts = {"values": self.values, "visits": self.visits}
        return {name: None if part is None else part.clone() for name, part in parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`."""
        self.values, self.visits = state["values"], state["visits"]
