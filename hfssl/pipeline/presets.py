"""What `--preset` means: the settings of each stage, the same for every data set.

Chosen on development data only: rows cut off the *training* parts of trec6, sst2, emotion and ag_news (800 held-out
rows); the runs are in `benchmarks/NOTES.md`. Departures from UST's settings that these runs, or their cost, speak for:

* Every model that learns from the labels starts with a supervised-contrastive stage on the same labels, and ends with
  logistic regression on its features: fine-tuning after it gained nothing in six of six runs.
* That stage ends half way back to the pretrained weights (`wise_ft_alpha`), and so may go twice as far: worth 0 to 5
  points, 2 on average, for nothing. Logistic regression on the means over its tokens speaks for a teacher
  (`teacher_probe`): 2 points more than its stock head, and 5 where classes are many.
* All steps that learn from labels grow with their root, from 100 labels on (`Preset.at`): 60 of that stage looked at
  each of 400 rows twice. 120 gained 5 points with 384 labels of emotion, 3 with 192 of trec6, 1 with 385 of banking77
  and nothing with 400 of sst2; 100 steps of a student instead of 50 gained 1 point on emotion and sst2, and nothing on
  banking77.
* The untrained backbone (three of its layers) and the classes' names have a say in the first pseudo-labels, as far as
  labels speak for them.
* `draw="all"` and `soft_targets=True` instead of a class-balanced draw of hard labels. Where the pool is not balanced
  (trec6 has 1.6 % abbreviations), asking for the same number of rows of each class fills the rare class's share with
  mistakes.
* The soft labels are brought to the class prior of the most probable ones before they are taught
  (`alignment="predicted"`): doubt spreads over all classes, and evens out the shares of a pool that is not even. The
  more classes, the more the labels' own shares count.
  `quick` leaves them: what a lone teacher favours is its own bias as often as the pool's, and is only made worse.
  Every row counts the same (`weighting="uniform"`).
* A student's step has 8 labeled and 32 pseudo-labeled rows: as good as 16 and 48, at 0.6 of the time.
* Students end with the moving average of their weights: 0.1 to 0.5 points in five of five runs, for nothing.
* When a student's steps are over, its head is fitted anew to all that it was taught (`retrain_head`): on rows that
  it has not seen 0.6 points after 120 steps and 1.3 after 60, most where classes are many, for one more look.
* Word embeddings stay as they are: on a few labels that costs no accuracy, and it saves a sixth of a step's time.
* Several teachers of different seeds in the first round (`num_teachers`) instead of 30 stochastic passes of one.
  They are labels-only models like the first, and what they disagree on is the record's BALD. Neither selection
  nor weights go by doubt, so passes would be a quarter of each look at the pool, for nothing.
* What the verdict keeps is trained anew on all labels (`refit`), with as many new teachers: the fifth of the labels
  that was held back is worth 3 points, more than the pool. Two teachers in both places have 0.8 points more of the
  pool right in the end than three in the first and one beside them in the second, which cost the same.
* Students start from their first teacher's weights (`student_init`), not from the pretrained ones: 60 steps do not
  teach a fresh head 77 classes (40 where it has 74 so), and elsewhere it gained 0.4 to 1.7 points.
* One round instead of 25.
* `thorough` learns as `standard` does: longer students, five teachers and a second round gained 0.0, 0.1 and 0.2
  points on average over eight runs, a longer contrastive stage nothing in two. Its time goes into what else there is
  to know: whether a pretext stage pays and, by cross-fitting, whether the pool does.
* No pretext stage below `thorough`: 300 steps from a fresh masked-language head cost more than all the rest of a run
  and changed nothing.
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
