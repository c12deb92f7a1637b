"""Which pseudo-labels count, and how much: thresholds and weights as small `Stateful` parts.

Each part has `select(batch) -> weights [M]`, and `commit()` after the step. Statistics are over all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hfssl.functional.consistency import (
    align,
    class_scaled,
    flexmatch_thresholds,
    hard_targets,
    truncated_gaussian_weights,
)
from hfssl.methods.consistency.statistics import MovingAverage, RowBank, mean_and_variance
from hfssl.runtime.distributed import total_over_ranks

__all__ = [
    "AdaptiveThreshold",
    "CurriculumThreshold",
    "DecayingThreshold",
    "FixedThreshold",
    "GaussianWeights",
    "RelativeThreshold",
    "Targets",
    "Threshold",
]


@dataclass
class Targets:
    """Holds what a threshold may look at.

    Attributes:
        probs (`Tensor`): `[M, K]` predictions for unlabeled units, without gradient.
        labeled_probs (`Tensor`): `[N, K]` predictions for labeled units, without gradient.
        labeled_loss (`Tensor`): Mean loss of the labeled rows, a scalar without gradient.
        units (`Tensor`): `[M]` number of each unit in the pool.
        pool_units (`int`): Number of units of the pool.
        step (`int`): Number of optimizer steps taken.
        total_steps (`int`): Number of optimizer steps of the run.
        balance (`Tensor` or `float`): Factor on the threshold of each class, `[K]`, or 1.
    """

    probs: Tensor
    labeled_probs: Tensor
    labeled_loss: Tensor
    units: Tensor
    pool_units: int
    step: int
    total_steps: int
    balance: Tensor | float = 1.0

    def accepted(self, thresholds: Tensor | float, probs: Tensor | None = None) -> Tensor:
        """Returns 1 where the confidence reaches the threshold of the predicted class, else 0; `[M]`.

        Args:
            thresholds (`Tensor` or `float`): `[K]`, or one for all classes.
            probs (`Tensor`, *optional*): `[M, K]`; by default `self.probs`.
        """
        probs = self.probs if probs is None else probs
        confidence, predicted = probs.max(-1)
        by_class = torch.as_tensor(thresholds * self.balance, device=probs.device)
        return (confidence >= (by_class[predicted] if by_class.dim() else by_class)).to(probs.dtype)


class Threshold:
    """Defines the interface; a subclass without state needs `select` only."""

    def select(self, batch: Targets) -> Tensor:
        """Returns the weight of each unlabeled unit, `[M]`. Collective: every rank must call this."""
        raise NotImplementedError(f"{type(self).__name__} does not define select().")  # abstract

    def target_probs(self, batch: Targets) -> Tensor:
        """Returns the probabilities `[M, K]` that pseudo-labels are taken from; called before `select`."""
        return batch.probs

    def commit(self) -> None:
        """Takes over what the step noted. Collective: every rank must call this."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`."""


class FixedThreshold(Threshold):
    """Accepts units whose largest probability is at least `threshold` (FixMatch, Sohn et al. 2020, equation 4)."""

    def __init__(self, threshold: float):
        self.threshold = threshold

    def select(self, batch: Targets) -> Tensor:
        """Returns 0 or 1 for each unit, `[M]`."""
        return batch.accepted(self.threshold)


class CurriculumThreshold(Threshold):
    """Lowers the threshold of classes that are learned slowly (FlexMatch, Zhang et al. 2021, equations 5 to 12).

    The bank stores the last class that a unit of the pool was predicted to have with confidence `threshold` or more
    (as in the authors' code; equation 5 counts the current predictions of all units).
    """

    def __init__(self, threshold: float):
        self.threshold = threshold
        self.bank = RowBank(fill=-1)

    def select(self, batch: Targets) -> Tensor:
        """Returns 0 or 1 for each unit, `[M]`, by the labels stored before this step."""
        confidence, predicted = batch.probs.max(-1)
        stored, _ = self.bank.prepare(batch.pool_units, 1, batch.probs.device)
        counts = torch.bincount(stored[:, 0] + 1, minlength=batch.probs.shape[-1] + 1)
        weights = batch.accepted(flexmatch_thresholds(counts[1:].float(), counts[0].float(), self.threshold))
        self.bank.put(batch.units, predicted[:, None], confidence >= self.threshold)
        return weights

    def commit(self) -> None:
        """Stores the labels of the step. Collective: every rank must call this."""
        self.bank.commit()

    def state_dict(self) -> dict[str, Any]:
        """Returns the stored labels."""
        return self.bank.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`."""
        self.bank.load_state_dict(state)


class _Averaged(Threshold):
    """Implements the state of a threshold whose only state is named moving averages."""

    averages: dict[str, MovingAverage]

    def commit(self) -> None:
        """Takes the averages of the step over."""
        for average in self.averages.values():
            average.commit()

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages, by name."""
        return {name: average.state_dict() for name, average in self.averages.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`."""
        for name, average in self.averages.items():
            average.load_state_dict(state[name])


def _uniform(classes: int) -> Tensor:
    return torch.full((classes,), 1 / classes)


class AdaptiveThreshold(_Averaged):
    """Follows the model's own confidence (FreeMatch, Wang et al. 2023, equations 5 to 8).

    Moving averages of the mean confidence tau, of the mean prediction p and of the histogram h of the predicted
    classes, all of which start at 1/K; the threshold of class c is tau p_c / max p.
    """

    def __init__(self, momentum: float):
        self.averages = {
            "confidence": MovingAverage(momentum),
            "probs": MovingAverage(momentum, start=_uniform),
            "histogram": MovingAverage(momentum, start=_uniform),
        }

    def select(self, batch: Targets) -> Tensor:
        """Returns 0 or 1 for each unit, `[M]`."""
        classes = batch.probs.shape[-1]
        if self.averages["confidence"].start is None:
            self.averages["confidence"].start = lambda columns: torch.full((columns,), 1 / classes)
        confidence = self.averages["confidence"].observe(batch.probs.amax(-1, keepdim=True))
        class_probs = self.averages["probs"].observe(batch.probs)
        self.averages["histogram"].observe(hard_targets(batch.probs))
        return batch.accepted(class_scaled(confidence, class_probs))


class GaussianWeights(_Averaged):
    """Weights by a truncated Gaussian of the confidence (SoftMatch, Chen et al. 2023, equations 5 to 8).

    The mean starts at 1/K and the variance at 1. With uniform alignment the confidence, and so the weight, is that of
    norm(q / p), p the moving average of the mean prediction; pseudo-labels stay those of q.
    """

    def __init__(self, momentum: float, n_sigma: float, uniform_alignment: bool):
        self.n_sigma, self.uniform_alignment = n_sigma, uniform_alignment
        self.averages = {"confidence": MovingAverage(momentum, statistic=mean_and_variance)}
        if uniform_alignment:
            self.averages["probs"] = MovingAverage(momentum)

    def select(self, batch: Targets) -> Tensor:
        """Returns a weight in (0, 1] for each unit, `[M]`."""
        probs, classes = batch.probs, batch.probs.shape[-1]
        if self.uniform_alignment:
            probs = align(probs, _uniform(classes).to(probs), self.averages["probs"].observe(probs))
        confidence = self.averages["confidence"]
        if confidence.start is None:
            confidence.start = lambda columns: torch.tensor([1 / classes, 1.0])
        average, variance = confidence.observe(probs.amax(-1, keepdim=True))
        return truncated_gaussian_weights(probs.amax(-1), average, variance, self.n_sigma)


class RelativeThreshold(_Averaged):
    """Measures confidence against that on labeled rows (AdaMatch, Berthelot et al. 2022, sections 3.2 and 3.3).

    Pseudo-labels are norm(q p_labeled / p_unlabeled), with moving averages of the mean predictions; the threshold is
    `threshold` times the mean confidence on the labeled rows of the batch.
    """

    def __init__(self, threshold: float, momentum: float):
        self.threshold = threshold
        self.averages = {"labeled": MovingAverage(momentum), "unlabeled": MovingAverage(momentum)}

    def target_probs(self, batch: Targets) -> Tensor:
        """Returns the aligned probabilities `[M, K]`. Collective: every rank must call this."""
        labeled = self.averages["labeled"].observe(batch.labeled_probs)
        return align(batch.probs, labeled, self.averages["unlabeled"].observe(batch.probs))

    def select(self, batch: Targets) -> Tensor:
        """Returns 0 or 1 for each unit, `[M]`, by the aligned probabilities that `batch` then holds."""
        confidence = batch.labeled_probs.amax(-1)
        sums = total_over_ranks(torch.stack([confidence.sum(), confidence.new_tensor(float(len(confidence)))]))
        return batch.accepted(self.threshold * sums[0] / sums[1])


class DecayingThreshold(_Averaged):
    """Accepts units whose loss is at most rho_t = max(C gamma^-(t-1) rho, rho_min) (Dash, Xu et al. 2021, equation 9).

    rho is the labeled loss of the first step that uses the pool. t grows from 1 in `updates` equal stages after the
    share `start` of the steps, as in the authors' code: with t = number of steps the threshold would be at its minimum
    after a dozen steps. The loss of a unit is -log max q, that of its own pseudo-label.
    """

    def __init__(self, gamma: float, c: float, minimum: float, updates: int, start: float = 0.0):
        self.gamma, self.c, self.minimum, self.updates, self.start = gamma, c, minimum, updates, start
        self.averages = {"labeled_loss": MovingAverage(momentum=0.0)}
        self.frozen = False

    def select(self, batch: Targets) -> Tensor:
        """Returns 0 or 1 for each unit, `[M]`."""
        first = self.averages["labeled_loss"]
        rho = first.current() if self.frozen else first.observe(batch.labeled_loss.reshape(1, 1))
        elapsed = (batch.step / batch.total_steps - self.start) / max(1e-9, 1 - self.start)
        stage = max(0, min(self.updates - 1, int(elapsed * self.updates)))
        limit = (self.c * self.gamma**-stage * rho.to(batch.probs)).clamp(min=self.minimum)
        return (-batch.probs.amax(-1).clamp(min=1e-12).log() <= limit).to(batch.probs.dtype)

    def commit(self) -> None:
        """Keeps the loss of the first step."""
        super().commit()
        self.frozen = self.averages["labeled_loss"].value is not None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`."""
        super().load_state_dict(state)
        self.frozen = self.averages["labeled_loss"].value is not None
