"""What FixMatch and its successors share: hard pseudo-labels of the weak view teach the strong view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hfssl.functional.consistency import hard_targets
from hfssl.methods.consistency.base import ConsistencyObjective
from hfssl.methods.consistency.config import ConsistencyConfig
from hfssl.methods.consistency.thresholds import FixedThreshold, Targets, Threshold
from hfssl.training.forward import Batch

__all__ = ["ThresholdConfig", "ThresholdObjective"]

THRESHOLD = "threshold"


@dataclass
class ThresholdConfig(ConsistencyConfig):
    """Holds the arguments of methods with a confidence threshold.

    Example:
        >>> from hfssl.methods.consistency.threshold_base import ThresholdConfig
        >>> ThresholdConfig(output_dir=str(folder)).confidence_threshold
        0.95
    """

    confidence_threshold: float = field(
        default=0.95, metadata={"help": "Smallest largest probability of a pseudo-label that counts."}
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        return super().problems() + self.unit_interval("confidence_threshold")


class ThresholdObjective(ConsistencyObjective):
    """Computes H(pseudo-label of the weak view, prediction for the strong view), weighted by a `Threshold`.

    The mean is over the whole batch and not over the accepted units (Sohn et al. 2020, equation 4).
    """

    def setup(self, model: nn.Module, args: Any) -> None:
        super().setup(model, args)
        self.threshold = self.make_threshold(args)
        self.parts[THRESHOLD] = self.threshold

    def make_threshold(self, args: Any) -> Threshold:
        """Returns the method's threshold."""
        return FixedThreshold(args.confidence_threshold)

    def targets(
        self, logits: Mapping[str, Tensor], labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> Targets:
        """Returns what the threshold looks at, without gradient."""
        view = self.target_views[0] if self.target_views else self.student_views[0]
        with torch.no_grad():
            probs, labeled_probs = self.probs(logits[view]), self.probs(logits["labeled"])
            rows = unlabeled[view]["row"]
            return Targets(
                probs=probs,
                labeled_probs=labeled_probs,
                labeled_loss=self.task.loss(self.units(logits["labeled"], labeled), labeled["labels"]),
                units=self.unit_numbers(rows, len(probs)),
                pool_units=self.pool_rows * (len(probs) // len(rows)),
                step=step,
                total_steps=self.total_steps,
                balance=self.balance(probs),
            )

    def unlabeled_loss(
        self, logits: Mapping[str, Tensor], labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the weighted cross-entropy with the pseudo-labels; logs the share that counts and the confidence."""
        batch = self.targets(logits, labeled, unlabeled, step)
        with torch.no_grad():
            batch.probs = self.threshold.target_probs(batch)
            weights = self.threshold.select(batch) * self.easy_first(batch.probs, step)
        student = self.student_views[0]
        units = self.adjusted(self.units(logits[student], unlabeled[student]))
        loss = self.task.loss(units, self.pseudo_labels(batch.probs), weights)
        logged = {"pool_utilisation": weights.mean(), "pseudo_label_confidence": batch.probs.amax(-1).mean()}
        extra, more = self.extra_loss(units, batch, weights)
        return loss + extra, logged | more

    def pseudo_labels(self, probs: Tensor) -> Tensor:
        """Returns the targets `[M, K]` for aligned probabilities `[M, K]`."""
        return hard_targets(probs)

    def extra_loss(self, units: Tensor, batch: Targets, weights: Tensor) -> tuple[Tensor | float, dict[str, Tensor]]:
        """Returns a further loss of the strong view's logits `[M, K]`, in units of `lambda_u`, and what is logged."""
        return 0.0, {}
