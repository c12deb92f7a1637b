"""Mean Teacher: predictions must agree with those of averaged weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hfssl.methods.consistency.pi_model import PiModelConfig, PiModelObjective
from hfssl.methods.consistency.trainer import ConsistencyTrainer
from hfssl.training.ema_teacher import EmaTeacher
from hfssl.training.forward import Batch, joint_logits

__all__ = ["MeanTeacherConfig", "MeanTeacherObjective", "MeanTeacherTrainer"]


class MeanTeacherObjective(PiModelObjective):
    """Computes L_u = mean of ||p(strong view) - p'(weak view)||^2 / K over units, p' by the averaged weights.

    The teacher has dropout, too, as in the paper. The student is the final model; the paper evaluates the teacher,
    which `weight_average_decay` equal to `teacher_decay` gives. Departure: unlabeled rows only, as in USB.
    """

    paper = "Mean teachers are better role models (Tarvainen & Valpola 2017), section 2"
    citation = """@inproceedings{tarvainen2017mean,
  title = {Mean Teachers are Better Role Models: Weight-averaged Consistency Targets Improve Semi-supervised Deep
           Learning Results},
  author = {Tarvainen, Antti and Valpola, Harri},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2017}
}"""

    logged_agreement: ClassVar[str] = "teacher_agreement"

    def setup(self, model: nn.Module, args: Any) -> None:
        super().setup(model, args)
        self.teacher = EmaTeacher(args.teacher_decay)
        self.parts["teacher"] = self.teacher

    def forward(
        self, model: nn.Module, labeled: Batch, unlabeled: Mapping[str, Batch], step: int
    ) -> dict[str, Tensor]:
        """Returns the teacher's outputs as `"weak"`, and those of the student."""
        with torch.no_grad(), self.teacher.applied_to(model) as teacher:
            weak = joint_logits(teacher, unlabeled["weak"])[0]
        others = {name: batch for name, batch in unlabeled.items() if name != "weak"}
        return {"weak": weak} | super().forward(model, labeled, others, step)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Moves the teacher toward the student's new weights."""
        super().after_step(model, step)
        if self.args.lambda_u > 0:
            self.teacher.update(model, step)


@dataclass
class MeanTeacherConfig(PiModelConfig):
    """Holds the arguments of `MeanTeacherTrainer`; the views are two dropout masks.

    Example:
        >>> import hfssl
        >>> hfssl.MeanTeacherConfig(output_dir=str(folder)).teacher_decay
        0.999
    """

    lambda_u: float = field(
        default=50.0, metadata={"help": "Weight of the unlabeled loss; 0 trains on the labels only."}
    )
    teacher_decay: float = field(
        default=0.999, metadata={"help": "Weight of the past in the teacher's weights; it is less in the first steps."}
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        return super().problems() + self.unit_interval("teacher_decay")


class MeanTeacherTrainer(ConsistencyTrainer):
    """Trains a student and its Mean Teacher (Tarvainen & Valpola 2017).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.MeanTeacherTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.MeanTeacherConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = MeanTeacherObjective
    config_class = MeanTeacherConfig
