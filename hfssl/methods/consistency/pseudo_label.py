"""Pseudo-Label: confident predictions of a view are its own targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hfssl.methods.consistency.threshold_base import ThresholdConfig, ThresholdObjective
from hfssl.methods.consistency.trainer import ConsistencyTrainer

__all__ = ["PseudoLabelConfig", "PseudoLabelObjective", "PseudoLabelTrainer"]


class PseudoLabelObjective(ThresholdObjective):
    """Computes L_u = mean_b 1[max p_b >= threshold] H(argmax p_b, p_b) on one view, `weak_view`.

    The weight grows over 40 % of the steps. The threshold is that of later reimplementations (Sohn et al. 2020, table
    2); the paper takes every row.
    """

    paper = "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method (Lee 2013), equations 14 to 16"
    citation = """@inproceedings{lee2013pseudo,
  title = {Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks},
  author = {Lee, Dong-Hyun},
  booktitle = {ICML Workshop on Challenges in Representation Learning},
  year = {2013}
}"""
    target_views: ClassVar[tuple[str, ...]] = ()
    student_views: ClassVar[tuple[str, ...]] = ("weak",)


@dataclass
class PseudoLabelConfig(ThresholdConfig):
    """Holds the arguments of `PseudoLabelTrainer`; `strong_view` is not used.

    Example:
        >>> import hfssl
        >>> hfssl.PseudoLabelConfig(output_dir=str(folder)).ramp_up
        0.4
    """

    ramp_up: float = field(
        default=0.4, metadata={"help": "Share of the steps over which the unlabeled weight grows from 0."}
    )


class PseudoLabelTrainer(ConsistencyTrainer):
    """Trains with Pseudo-Label (Lee 2013).

    Example:
        >>> import hfssl
        >>> trainer = hfssl.PseudoLabelTrainer(
        ...     hfssl.load_classifier(backbone, ["bad", "good"], seed=0),
        ...     hfssl.PseudoLabelConfig(
        ...         output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
        ...     ),
        ...     train_dataset=dataset,
        ...     unlabeled_dataset=pool,
        ...     processing_class=tokenizer,
        ... )
        >>> trainer.train().global_step
        2
    """

    objective_class = PseudoLabelObjective
    config_class = PseudoLabelConfig
