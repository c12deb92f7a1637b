"""Pi-model: two noisy predictions for a row must agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from hfssl.functional.consistency import squared_difference
from hfssl.methods.consistency.base import ConsistencyObjective
from hfssl.methods.consistency.config import ConsistencyConfig
from hfssl.methods.consistency.trainer import ConsistencyTrainer
from hfssl.training.forward import Batch

__all__ = ["PiModelConfig", "PiModelObjective", "PiModelTrainer"]


class PiModelObjective(ConsistencyObjective):
    """Computes L_u = mean of ||p(strong view) - q||^2 / K over units, q = p(weak view) without gradient.

    Departures: the term is on unlabeled rows only, as in USB (the paper adds it for all rows). In the paper the
    gradient flows through both predictions, which has the same expectation up to a factor of 2; here one is the
    target, so that its backward pass is saved.
    """

    paper = "Temporal Ensembling for Semi-Supervised Learning (Laine & Aila 2017), algorithm 1"
    citation = """@inproceedings{laine2017temporal,
  title = {Temporal Ensembling for Semi-Supervised Learning},
  author = {Laine, Samuli and Aila, Timo},
  booktitle = {International Conference on Learning Representations},
  year = {2017}
}"""

    logged_agreement: ClassVar[str] = "view_agreement"  # name in the log

    def unlabeled_loss(
        self, logits: Mapping[str, Tensor], labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the squared difference, and logs the agreement of target and student."""
        target, student = self.probs(logits["weak"]), self.probs(logits["strong"])
        weights = self.easy_first(target, step)
        agreement = (target.argmax(-1) == student.argmax(-1)).float().mean()
        return squared_difference(student, target, weights), {self.logged_agreement: agreement}


@dataclass
class PiModelConfig(ConsistencyConfig):
    """Holds the arguments of `PiModelTrainer`; the views are two dropout masks.

    Example:
        >>> import hfssl
        >>> hfssl.PiModelConfig(output_dir=str(folder)).lambda_u
        10.0
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


class PiModelTrainer(ConsistencyTrainer):
    """Trains the Pi-model (Laine & Aila 2017).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.PiModelTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.PiModelConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = PiModelObjective
    config_class = PiModelConfig
