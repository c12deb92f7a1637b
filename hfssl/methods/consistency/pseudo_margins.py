"""Pseudo-margins of the pool's units: how clearly the model prefers its class, averaged over visits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hfssl.methods.consistency.statistics import RowBank

__all__ = ["PseudoMargins", "class_quantiles"]


def class_quantiles(values: Tensor, classes: Tensor, num_classes: int, quantile: float) -> Tensor:
    """Returns the lower quantile of the values of each class, `[K]`; minus infinity for a class without values.

    Args:
        values (`Tensor`): `[N]`.
        classes (`Tensor`): `[N]` class of each value.
        num_classes (`int`): Number K of classes.
        quantile (`float`): In [0, 1]; entry floor(quantile (n - 1)) of the n sorted values of a class.

    Example:
        >>> class_quantiles(torch.tensor([3.0, 1.0, 2.0, 7.0]), torch.tensor([0, 0, 0, 2]), 3, 0.5).tolist()
        [2.0, -inf, 7.0]
    """
    order = values.argsort(stable=True)
    order = order[classes[order].argsort(stable=True)]
    counts = torch.bincount(classes, minlength=num_classes)
    places = counts.cumsum(0) - counts + (quantile * (counts - 1).clamp(min=0)).long()
    lowest = values.new_full((num_classes,), -torch.inf)
    if not len(values):
        return lowest
    return torch.where(counts > 0, values[order][places.clamp(max=len(values) - 1)], lowest)


class PseudoMargins:
    """Leaves out units whose pseudo-margin is among the lowest of their class (after MultiMatch, Sirbu et al. 2025).

    The margin of a unit is its largest logit minus the next one, averaged over its visits: m <- momentum m + (1 -
    momentum) fresh. A unit counts if its margin reaches the `percentile` of the margins of the units with its class,
    taken over all units of the pool that were visited before this step.

    Args:
        momentum (`float`): Weight of earlier visits, in [0, 1].
        percentile (`float`): Share that is left out, in [0, 1].
    """

    def __init__(self, momentum: float, percentile: float):
        self.momentum, self.percentile = momentum, percentile
        self.margins = RowBank(
            fill=0.0,
            update=lambda old, fresh, visits: torch.where(visits > 0, momentum * old + (1 - momentum) * fresh, fresh),
        )
        self.classes = RowBank(fill=0)

    @torch.no_grad()
    def select(self, units: Tensor, logits: Tensor, pool_units: int) -> Tensor:
        """Returns 0 or 1 for each unit, `[M]`, and notes the margins of the step.

        Args:
            units (`Tensor`): `[M]` numbers of the units.
            logits (`Tensor`): `[M, K]`.
            pool_units (`int`): Number of units of the pool.
        """
        top, predicted = logits.topk(2, dim=-1)
        fresh = (top[:, 0] - top[:, 1]).float()
        values, visits = self.margins.prepare(pool_units, 1, logits.device)
        classes, _ = self.classes.prepare(pool_units, 1, logits.device)
        seen = visits > 0
        least = class_quantiles(values[seen, 0], classes[seen, 0], logits.shape[-1], self.percentile)
        known = seen[units]
        margin = torch.where(known, self.momentum * values[units, 0] + (1 - self.momentum) * fresh, fresh)
        self.margins.put(units, fresh[:, None])
        self.classes.put(units, predicted[:, :1])
        return (margin >= least[predicted[:, 0]]).to(logits.dtype)

    def commit(self) -> None:
        """Takes the margins of the step over. Collective: every rank must call this."""
        self.margins.commit()
        self.classes.commit()

    def state_dict(self) -> dict[str, Any]:
        """Returns both banks."""
        return {"margins": self.margins.state_dict(), "classes": self.classes.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`."""
        self.margins.load_state_dict(state["margins"])
        self.classes.load_state_dict(state["classes"])
