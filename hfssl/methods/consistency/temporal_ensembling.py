"""Temporal Ensembling: predictions must agree with the average of earlier ones for the row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from hfssl.functional.consistency import squared_difference
from hfssl.methods.consistency.base import ConsistencyObjective
from hfssl.methods.consistency.config import ConsistencyConfig
from hfssl.methods.consistency.statistics import RowBank
from hfssl.methods.consistency.trainer import ConsistencyTrainer
from hfssl.training.forward import Batch

__all__ = ["TemporalEnsemblingConfig", "TemporalEnsemblingObjective", "TemporalEnsemblingTrainer"]


class TemporalEnsemblingObjective(ConsistencyObjective):
    """Computes L_u = mean of ||p - Z / (1 - alpha^t)||^2 / K; Z <- alpha Z + (1 - alpha) p after each visit.

    t counts the visits of a row, which the paper's epochs are; a row without an earlier visit has weight 0. The bank
    has a line for each row of the pool, and is part of each checkpoint. Departure: unlabeled rows only, as for the
    Pi-model.
    """

    paper = "Temporal Ensembling for Semi-Supervised Learning (Laine & Aila 2017), algorithm 2"
    citation = """@inproceedings{laine2017temporal,
  title = {Temporal Ensembling for Semi-Supervised Learning},
  author = {Laine, Samuli and Aila, Timo},
  booktitle = {International Conference on Learning Representations},
  year = {2017}
}"""
    target_views: ClassVar[tuple[str, ...]] = ()

    def setup(self, model: nn.Module, args: Any) -> None:
        super().setup(model, args)
        alpha = args.ensemble_momentum
        self.bank = RowBank(fill=0.0, update=lambda old, fresh, visits: alpha * old + (1 - alpha) * fresh)
        self.parts["ensemble"] = self.bank

    def unlabeled_loss(
        self, logits: Mapping[str, Tensor], labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the squared difference to the ensemble, and logs the share of rows that have one."""
        student, rows = self.probs(logits["strong"]), unlabeled["strong"]["row"]
        units = self.unit_numbers(rows, len(student))
        values, visits = self.bank.prepare(
            self.pool_rows * (len(student) // len(rows)), student.shape[-1], student.device
        )
        known = (visits[units] > 0).to(student.dtype)
        correction = 1 - self.args.ensemble_momentum ** visits[units].clamp(min=1).to(student.dtype)
        target = values[units].to(student.dtype) / correction[:, None]
        self.bank.put(units, student)
        return squared_difference(student, target, known), {"rows_with_target": known.mean()}


@dataclass
class TemporalEnsemblingConfig(ConsistencyConfig):
    """Holds the arguments of `TemporalEnsemblingTrainer`; `weak_view` is not used.

    Example:
        >>> import hfssl
        >>> hfssl.TemporalEnsemblingConfig(output_dir=str(folder)).ensemble_momentum
        0.6
    """

    lambda_u: float = field(
        default=10.0, metadata={"help": "Weight of the unlabeled loss; 0 trains on the labels only."}
    )
    strong_view: str = field(
        default="dropout",
        metadata={"help": "View of an unlabeled row whose predictions learn; by default another dropout mask."},
    )
    ramp_up: float = field(
        default=0.4, metadata={"help": "Share of the steps over which the unlabeled weight grows from 0."}
    )
    ensemble_momentum: float = field(
        default=0.6, metadata={"help": "Weight alpha of earlier predictions in the ensemble of a row, below 1."}
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        found = super().problems() + self.unit_interval("ensemble_momentum")
        return found + (["ensemble_momentum must be below 1, got 1."] if self.ensemble_momentum == 1 else [])


class TemporalEnsemblingTrainer(ConsistencyTrainer):
    """Trains with Temporal Ensembling (Laine & Aila 2017).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.TemporalEnsemblingTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.TemporalEnsemblingConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = TemporalEnsemblingObjective
    config_class = TemporalEnsemblingConfig
