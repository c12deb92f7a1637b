"""What `--preset` means: the settings of each stage, the same for every data set.

Chosen on development data only; `benchmarks/NOTES.md` has the runs, and under "Why the presets are as they are" what
they gained. Departures from the settings of UST (Mukherjee & Awadallah 2020):

* Every model that learns from the labels starts with a supervised-contrastive stage on the same labels, and ends with
  logistic regression on its features instead of fine-tuning.
* That stage ends half way back to the pretrained weights (`wise_ft_alpha`). Teachers predict by logistic regression
  on the means over their tokens (`teacher_probe`).
* All steps that learn from labels grow with the root of the number of labels, from 100 labels on (`Preset.at`).
* The untrained backbone and the names of the classes take part in the first pseudo-labels, weighted on the labels.
* Pseudo-labels are soft, for the whole pool, with equal weights (`selection_strategy="all"`, `soft_targets=True`,
  `weighting="uniform"`): where the pool is not balanced, a class-balanced selection fills rare classes with mistakes.
* They are aligned to the class prior of the most probable ones (`distribution_alignment="predicted"`), except in
  `quick`, whose lone teacher has a bias of its own.
* Students start from the weights of their first teacher, end with the moving average of their weights, and have
  their head fitted again to all that they were trained on (`retrain_head`). Word embeddings stay as they are.
* Several teachers of different seeds instead of many stochastic passes of one; one round instead of 25.
* The selected stage is trained once more on all labels (`refit`), with as many new teachers.
* `thorough` learns as `standard` does; its time goes into a pretext stage and into cross-fitting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["FEW_LABELS", "PRESETS", "PRETEXT_ON_REQUEST", "Preset"]

FEW_LABELS = 100  # rows; the presets' steps are for so many or fewer


@dataclass(frozen=True)
class Preset:
    """Settings of one run of `fit` on at most `FEW_LABELS` labels; `at` gives those for more.

    Attributes:
        supervised: Fields of `SupervisedConfig` for the labels-only model and further teachers, and for every student
            unless `self_training` says otherwise.
        contrastive: Fields of `ContrastiveConfig` for the stage before the labels-only model and each further teacher,
            or `None` for none.
        teacher_overrides: Settings of the second, third, ... teacher's contrastive stage that differ, from the
            first again when they are used up: models of an ensemble that differ in more than their seed
            make less similar errors (Wenzel et al. 2020, "Hyperparameter ensembles").
        pretext: Fields of `MaskedSpanConfig`, or `None` for no pretext stage by default.
        self_training: Fields of `SelfTrainingConfig`; `rounds=0` for none.
        max_pool_rows: Self-training looks at so many unlabeled rows, drawn at random (UST: 16,384 a round), so that
            a larger pool costs no more; `None` for all.
        methods: Stage -> fields of its method's configuration, for other pool stages
            (`hfssl.pipeline.stages.pool_method`); the defaults of the method without an entry.
        refit: Whether the approach that the verdict keeps is trained once more on all labels, held-out ones included.
        cross_fit: Folds of the labeled rows that are used for the verdict (`hfssl.evaluation.cross_fitting`); 0 for
            none: every fold costs a labels-only model and a student.
    """

    supervised: dict[str, Any] = field(default_factory=dict)
    contrastive: dict[str, Any] | None = None
    teacher_overrides: tuple[dict[str, Any], ...] = ({},)
    pretext: dict[str, Any] | None = None
    self_training: dict[str, Any] = field(default_factory=dict)
    max_pool_rows: int | None = None
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    refit: bool = False
    cross_fit: int = 0

    def overrides(self, number: int) -> dict[str, Any]:
        """Settings of teacher `number`, from 0, that differ: none for the first, then `teacher_overrides` in turn."""
        return self.teacher_overrides[(number - 1) % len(self.teacher_overrides)] if number else {}

    def at(self, labels: int) -> Preset:
        """The settings for so many labeled rows: steps grow with the root of their number, from `FEW_LABELS` on."""
        factor = math.sqrt(max(labels, FEW_LABELS) / FEW_LABELS)

        def longer(settings: dict[str, Any] | None) -> dict[str, Any] | None:
            if settings is None or "max_steps" not in settings:
                return settings
            return settings | {"max_steps": math.ceil(factor * settings["max_steps"])}

        parts = ("supervised", "contrastive", "self_training")
        return replace(self, **{name: longer(getattr(self, name)) for name in parts})


# The steps of `--max-steps`, if there are any: the contrastive stage ends with logistic regression on its features.
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
    refit=True,
)

PRESETS: dict[str, Preset] = {
    "quick": Preset(
        contrastive={**CONTRASTIVE, "max_steps": 60},
        supervised=SUPERVISED,
        self_training={**SELF_TRAINING, "max_steps": 50, "rounds": 1, "distribution_alignment": "none"},
        max_pool_rows=2000,
        refit=True,
    ),
    "standard": STANDARD,
    "thorough": replace(STANDARD, pretext={"max_steps": 2000}, max_pool_rows=16_384, cross_fit=3),
}

# For `--pretext` where the preset has none.
PRETEXT_ON_REQUEST: dict[str, Any] = {"max_steps": 300}
