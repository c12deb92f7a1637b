"""The values of `--preset`: settings of each stage, the same for every data set.

The settings were chosen on development data only; `benchmarks/NOTES.md` describes the runs, and their gains under "Why
the presets are as they are". Departures from the settings of UST (Mukherjee & Awadallah 2020):

* Every model that learns from the labels starts with a supervised-contrastive stage on the same labels, and ends with
  logistic regression on its features instead of fine-tuning.
* That stage ends with the mean of the trained and the pretrained weights (`wise_ft_alpha`). Teachers predict by
  logistic regression on the means over their tokens (`teacher_probe`).
* The number of steps that learn from labels grows with the square root of the number of labels, from 100 labels on
  (`Preset.at`).
* The untrained backbone and the names of the classes take part in the first pseudo-labels, weighted on the labels.
* Pseudo-labels are soft, for the whole pool, with equal weights (`selection_strategy="all"`, `soft_targets=True`,
  `weighting="uniform"`): where the pool is not balanced, a class-balanced selection fills rare classes with mistakes.
* They are aligned to the class prior of the most probable ones (`distribution_alignment="predicted"`), except in
  `quick`, where the single teacher's bias would decide.
* Students start from the weights of their first teacher and end with the moving average of their weights; their head
  is then fitted again to all rows that they were trained on (`retrain_head`). Word embeddings are frozen.
* Several teachers instead of many stochastic passes of one; one round instead of 25. One teacher learns from all
  labels, and one from those outside each fold of the labels (`cross_fit`); the predictions of the latter for the rows
  of their fold decide how much each member of the ensemble counts.
* No labels are held out. The verdict rests on the folds: in `standard`, on short students of each fold
  (`fold_students`); in `quick`, on the ensembles that would teach them.
* `thorough` trains with the settings of `standard`, with a pretext stage and cross-fitting in addition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["FEW_LABELS", "PRESETS", "PRETEXT_ON_REQUEST", "Preset"]

FEW_LABELS = 100  # largest number of labeled rows for which the presets' steps are meant
SHORTEST = 0.5  # factor on the steps with very few labels
MIN_POOL_ROWS = 1000


@dataclass(frozen=True)
class Preset:
    """Holds the settings of one run of `fit` on at most `FEW_LABELS` labels; `at` returns those for more.

    Attributes:
        supervised (`dict[str, Any]`): Fields of `SupervisedConfig` for the labels-only model and further teachers, and
            for every student unless `self_training` overrides them.
        contrastive (`dict[str, Any]`, *optional*): Fields of `ContrastiveConfig` for the stage before the labels-only
            model and each further teacher; `None` for no such stage.
        teacher_overrides (`tuple[dict[str, Any], ...]`): Settings of the contrastive stage of the second, third, ...
            teacher that differ, used in turn. Models of an ensemble that differ in more than their seed make less
            similar errors (Wenzel et al. 2020, "Hyperparameter ensembles").
        pretext (`dict[str, Any]`, *optional*): Fields of `MaskedSpanConfig`; `None` for no pretext stage by default.
        self_training (`dict[str, Any]`): Fields of `SelfTrainingConfig`; `rounds=0` for no self-training.
        max_pool_rows (`int`, *optional*): Largest number of unlabeled rows for self-training, chosen at random (UST:
            16,384 per round), so that a larger pool costs no more; `None` for all.
        pool_rows_per_label (`int`, *optional*): Largest number of these rows per label, from `MIN_POOL_ROWS` on;
            `None` for no such limit.
        few_labels_power (`float`, defaults to 0): Power of the number of labels with which steps shrink below
            `FEW_LABELS`; 0 leaves them as they are.
        methods (`dict[str, dict[str, Any]]`): Stage -> fields of its method's configuration, for other pool stages
            (`hfssl.pipeline.stages.pool_method`), in addition to `POOL_METHOD`.
        refit (`bool`, defaults to `False`): Whether the selected stage is trained once more on all labels, held-out
            ones included; only where labels were held out (`--validation-fraction`).
        cross_fit (`int`, defaults to 0): Number of folds of the labeled rows (`hfssl.evaluation.cross_fitting`), each
            of which costs a teacher; 0 for none.
        fold_teachers (`dict[str, Any]`): Fields of `ContrastiveConfig` in which the folds' teachers differ.
        fold_students (`dict[str, Any]`, *optional*): Fields of `SelfTrainingConfig` in which the folds' students
            differ, which are for the verdict only; `None` for no such students.
        fold_pool_rows (`int`, defaults to 1000): Largest number of unlabeled rows for a fold's student.
    """

    supervised: dict[str, Any] = field(default_factory=dict)
    contrastive: dict[str, Any] | None = None
    teacher_overrides: tuple[dict[str, Any], ...] = ({},)
    pretext: dict[str, Any] | None = None
    self_training: dict[str, Any] = field(default_factory=dict)
    max_pool_rows: int | None = None
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    refit: bool = False
    pool_rows_per_label: int | None = None
    few_labels_power: float = 0.0
    cross_fit: int = 0
    fold_teachers: dict[str, Any] = field(default_factory=dict)
    fold_students: dict[str, Any] | None = None
    fold_pool_rows: int = 1000

    def of_method(self, stage: str, labels: int) -> dict[str, Any]:
        """Returns the settings of a stage that trains with one method on labels and pool: `POOL_METHOD` and `methods`.

        Its steps are those of a student.

        Args:
            stage (`str`): Name of the stage.
            labels (`int`): Number of labeled rows.
        """
        student = self.at(labels).self_training
        steps = {"max_steps": student["max_steps"]} if "max_steps" in student else {}
        anchored = {"anchor_weight": 1.0} if stage == "both" else {}
        return POOL_METHOD | steps | anchored | self.methods.get(stage, {})

    def pool_rows(self, available: int, labels: int) -> int:
        """Returns the number of unlabeled rows that self-training uses.

        Args:
            available (`int`): Number of unlabeled rows.
            labels (`int`): Number of labeled rows.
        """
        most = available if self.max_pool_rows is None else self.max_pool_rows
        if self.pool_rows_per_label is not None:
            most = min(most, max(MIN_POOL_ROWS, self.pool_rows_per_label * labels))
        return min(available, most)

    def overrides(self, number: int) -> dict[str, Any]:
        """Returns the settings of a teacher that differ: none for the first, then `teacher_overrides` in turn.

        Args:
            number (`int`): Number of the teacher, from 0.
        """
        return self.teacher_overrides[(number - 1) % len(self.teacher_overrides)] if number else {}

    def at(self, labels: int) -> Preset:
        """Returns the settings for a number of labeled rows: from `FEW_LABELS` on, steps grow with its square root.

        With fewer, they shrink with its power `few_labels_power`, to a half at least.

        Args:
            labels (`int`): Number of labeled rows.

        Example:
            >>> from hfssl.pipeline.presets import Preset
            >>> Preset(contrastive={"max_steps": 60}).at(400).contrastive
            {'max_steps': 120}
        """
        if labels >= FEW_LABELS:
            factor = math.sqrt(labels / FEW_LABELS)
        else:
            factor = max(SHORTEST, (max(labels, 1) / FEW_LABELS) ** self.few_labels_power)

        def longer(settings: dict[str, Any] | None) -> dict[str, Any] | None:
            if settings is None or "max_steps" not in settings:
                return settings
            return settings | {"max_steps": math.ceil(factor * settings["max_steps"])}

        parts = ("supervised", "contrastive", "self_training", "fold_teachers", "fold_students")
        return replace(self, **{name: longer(getattr(self, name)) for name in parts})


# Of a method that trains on labels and pool at once, from the labels-only model.
POOL_METHOD = {
    "learning_rate": 5e-5,
    "head_learning_rate": 5e-4,
    "freeze_embeddings": True,
    "per_device_train_batch_size": 8,
    "unlabeled_ratio": 4,
    "weight_average_decay": 0.98,
}

# Steps are taken only with `--max-steps`: the contrastive stage ends with logistic regression on its features.
SUPERVISED = {
    "max_steps": 0,
    "head_init": "logistic",
    "learning_rate": 1e-4,
    "head_learning_rate": 1e-3,
    "freeze_embeddings": True,
}
CONTRASTIVE = {
    "learning_rate": 3e-4,
    "wise_ft_alpha": 0.5,
    "per_device_train_batch_size": 16,
    "freeze_embeddings": True,
}
SELF_TRAINING = {
    "head_init": "random",
    "learning_rate": 3e-4,
    "selection_strategy": "all",
    "selection_fraction": 1.0,
    "student_init": "teacher",
    "retrain_head": True,
    "soft_targets": True,
    "distribution_alignment": "predicted",
    "label_name_prior": True,
    "teacher_probe": True,
    "backbone_probe": True,
    "ood_filter": True,
    "weighting": "uniform",
    "per_device_train_batch_size": 8,
    "unlabeled_ratio": 4,
    "mc_passes": 0,
    "weight_average_decay": 0.98,
}

STANDARD = Preset(
    contrastive={**CONTRASTIVE, "max_steps": 80},
    teacher_overrides=({"learning_rate": 2e-4}, {"learning_rate": 4e-4}),  # no one rate suits all data
    supervised=SUPERVISED,
    self_training={**SELF_TRAINING, "max_steps": 120, "rounds": 1, "num_teachers": 2},
    max_pool_rows=6000,
    cross_fit=3,
    fold_teachers={"max_steps": 60},
    fold_students={"max_steps": 40},
)

PRESETS: dict[str, Preset] = {
    "quick": Preset(
        contrastive={**CONTRASTIVE, "max_steps": 60},
        supervised=SUPERVISED,
        self_training={**SELF_TRAINING, "max_steps": 50, "rounds": 1, "distribution_alignment": "none"},
        max_pool_rows=2000,
        pool_rows_per_label=50,
        few_labels_power=0.25,
        cross_fit=2,
        fold_teachers={"max_steps": 40},
    ),
    "standard": STANDARD,
    "thorough": replace(STANDARD, pretext={"max_steps": 2000}, max_pool_rows=16_384, cross_fit=5),
}

# Settings of `--pretext` where the preset has no pretext stage.
PRETEXT_ON_REQUEST: dict[str, Any] = {"max_steps": 300}
