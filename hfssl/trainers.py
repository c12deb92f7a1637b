"""The named trainers: `SSLTrainer` with one method each. What differs is said in a few lines; mechanics live below."""

from __future__ import annotations

from typing import Any, ClassVar

from hfssl.configs import SelfTrainingConfig, SSLConfig, SupervisedConfig
from hfssl.objectives import SelfTrainingObjective, SupervisedObjective
from hfssl.objectives.base import Objective
from hfssl.trainer import SSLTrainer

__all__ = ["TRAINERS", "SelfTrainingTrainer", "SupervisedTrainer"]


class _MethodTrainer(SSLTrainer):
    objective_class: ClassVar[type[Objective]]
    config_class: ClassVar[type[SSLConfig]]

    def __init__(self, *args: Any, objective: Objective | None = None, **kwargs: Any):
        super().__init__(*args, objective=self.objective_class() if objective is None else objective, **kwargs)


class SupervisedTrainer(_MethodTrainer):
    """Fine-tuning on the labels alone: the baseline."""

    objective_class = SupervisedObjective
    config_class = SupervisedConfig


class SelfTrainingTrainer(_MethodTrainer):
    """One student: labeled rows plus weighted pseudo-labeled rows (columns `pseudo_probs` and `weight`).

    The rounds around it are in `hfssl.rounds`.
    """

    objective_class = SelfTrainingObjective
    config_class = SelfTrainingConfig


TRAINERS = {"supervised": SupervisedTrainer, "self_training": SelfTrainingTrainer}
