"""The cost of a run, estimated before it starts: tokens through the model, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from datasets import Dataset
from transformers import AutoConfig

from hfssl.config.methods import resolve
from hfssl.config.stages import STAGES, stage_row
from hfssl.methods.contrastive import ContrastiveConfig
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.supervised import SupervisedConfig
from hfssl.pipeline.plan import RunPlan
from hfssl.pipeline.presets import Preset
from hfssl.training.config import SSLConfig

__all__ = ["RunSizes", "StageCost", "cost_table", "estimate_costs", "method_costs", "scoring_tokens", "sizes_of"]

# A backward pass costs two forward passes (Kaplan et al. 2020, section 2.1).
TRAINING, SCORING = 3.0, 1.0
POOL_METHOD_COST = "hfssl.pipeline.stages.pool_method:cost"  # of the stages made by `method_stage`


@dataclass(frozen=True)
class StageCost:
    """Holds the number of tokens of one stage.

    Attributes:
        stage (`str`): Name of the stage, in `STAGES`.
        trained (`float`): Number of tokens that go forward and backward.
        scored (`float`, defaults to 0): Number of tokens that go forward only; a pass through a part of the layers
            counts as that part.
    """

    stage: str
    trained: float
    scored: float = 0.0

    @property
    def units(self) -> float:
        """Returns the cost in forward passes of one token."""
        return TRAINING * self.trained + SCORING * self.scored


@dataclass(frozen=True)
class RunSizes:
    """Holds the numbers that determine the costs of the stages: upper limits, which early stops may undercut.

    Args:
        preset (`Preset`): Settings of the stages.
        stages (`Sequence[str]`): Names of the planned stages.
        lengths (`Mapping[str, float]`): Mean number of tokens in a row of `labeled` and of `unlabeled`.
        labels (`int`): Number of labeled rows.
        held_out (`int`): Number of labeled rows that only the refit learns from.
        pool (`int`): Number P of unlabeled rows that pool stages use.
        layers (`int`): Number of layers of the encoder.
        rounds (`int`, defaults to 0): Number of rounds of self-training.
        folds (`int`, defaults to 0): Number of folds of the labels.
        max_steps (`int`, *optional*): Number of steps of labels only and of each student, where the user gave it.
    """

    preset: Preset
    stages: Sequence[str]
    lengths: Mapping[str, float]
    labels: int
    held_out: int
    pool: int
    layers: int
    rounds: int = 0
    folds: int = 0
    max_steps: int | None = None

    @property
    def num_labels_only(self) -> int:
        """Returns the number of stages whose classifier learns from labels only."""
        rows = [STAGES[name] for name in self.stages]
        return sum(row.product == "classifier" and not row.reads_pool for row in rows)

    @property
    def num_teachers(self) -> int:
        """Returns the number of models that are trained to label the pool."""
        return self._of_student("num_teachers")

    @property
    def ensemble_size(self) -> int:
        """Returns the number of models that label the pool: the teachers, and their average with `model_soup`."""
        return self.num_teachers + self._of_student("model_soup")

    @property
    def head_scored(self) -> float:
        """Returns the tokens that are scored to fit a student's head again; 0 without `retrain_head`."""
        if not self._of_student("retrain_head"):
            return 0.0
        return scoring_tokens(self.pool, self.lengths["unlabeled"], models=1, passes=0)

    def labels_only(self, labels: int) -> float:
        """Returns the tokens of a labels-only model: those of the contrastive stage and of fine-tuning.

        Args:
            labels (`int`): Number of labeled rows.
        """
        preset, length = self.preset.at(labels), self.lengths["labeled"]
        tokens = self.trained(SupervisedConfig, preset.supervised | self._given, length)
        if preset.contrastive is not None:
            tokens += self.trained(ContrastiveConfig, preset.contrastive, length, views=2)
        return tokens

    def student(self, labels: int) -> float:
        """Returns the tokens of a student.

        Args:
            labels (`int`): Number of labeled rows.
        """
        settings = self._student_settings(labels)
        ratio = self.setting(SelfTrainingConfig, settings, "unlabeled_ratio")
        return self.trained(SelfTrainingConfig, settings, self.lengths["labeled"] + ratio * self.lengths["unlabeled"])

    @property
    def fold_teacher(self) -> float:
        """Returns the tokens of a labels-only model that is trained without a fold."""
        preset = self.preset.at(self.labels * (self.folds - 1) // max(1, self.folds))
        tokens = self.trained(SupervisedConfig, preset.supervised | self._given, self.lengths["labeled"])
        if preset.contrastive is not None:
            settings = preset.contrastive | preset.fold_teachers
            tokens += self.trained(ContrastiveConfig, settings, self.lengths["labeled"], views=2)
        return tokens

    @property
    def fold_student(self) -> float:
        """Returns the tokens of a student that is trained without a fold."""
        settings = self._student_settings(self.labels) | (self.preset.at(self.labels).fold_students or {})
        ratio = self.setting(SelfTrainingConfig, settings, "unlabeled_ratio")
        return self.trained(SelfTrainingConfig, settings, self.lengths["labeled"] + ratio * self.lengths["unlabeled"])

    def scored(self, models: int) -> float:
        """Returns the tokens of scoring the pool once, stochastic passes included.

        Args:
            models (`int`): Number of models that score the pool.
        """
        top = self._of_student("mc_top_layers")
        share = 1.0 if top is None else min(1.0, top / self.layers)
        passes, length = self._of_student("mc_passes"), self.lengths["unlabeled"]
        return scoring_tokens(self.pool, length, models=models, passes=passes, share_of_layers=share)

    def trained(self, kind: type[SSLConfig], settings: Mapping[str, Any], length: float, views: int = 1) -> float:
        """Returns the tokens of a training run.

        Args:
            kind (`type[SSLConfig]`): Class of its training arguments.
            settings (`Mapping[str, Any]`): Values that differ from the defaults of that class.
            length (`float`): Mean number of tokens in a row.
            views (`int`, defaults to 1): Number of times that a row enters a step.
        """
        steps, rows = (self.setting(kind, settings, name) for name in ("max_steps", "per_device_train_batch_size"))
        return steps * rows * views * length

    @staticmethod
    def setting(kind: type[SSLConfig], settings: Mapping[str, Any], name: str) -> Any:
        """Returns the value in `settings`, or the default of the configuration class.

        Args:
            kind (`type[SSLConfig]`): The configuration class.
            settings (`Mapping[str, Any]`): Values by field name.
            name (`str`): Name of the field.
        """
        return settings.get(name, next(field.default for field in fields(kind) if field.name == name))

    @property
    def _given(self) -> dict[str, int]:
        return {} if self.max_steps is None else {"max_steps": self.max_steps}

    def _student_settings(self, labels: int) -> dict[str, Any]:
        preset = self.preset.at(labels)
        return preset.supervised | preset.self_training | self._given

    def _of_student(self, name: str) -> Any:
        return self.setting(SelfTrainingConfig, self._student_settings(self.labels), name)


def sizes_of(plan: RunPlan, tokens: Mapping[str, Dataset]) -> RunSizes:
    """Returns the sizes of a planned run.

    Args:
        plan (`RunPlan`): Plan of the run.
        tokens (`Mapping[str, Dataset]`): Parts of the data, tokenized.
    """
    lengths = {}
    for name in ("labeled", "unlabeled"):
        rows = tokens[name]["input_ids"][:]
        lengths[name] = sum(map(len, rows)) / max(1, len(rows))
    config = AutoConfig.from_pretrained(plan.arguments.backbone, revision=plan.arguments.revision).get_text_config()
    return RunSizes(
        plan.preset,
        plan.stages,
        lengths=lengths,
        labels=plan.rows["labeled"],
        held_out=plan.rows["validation"],
        pool=len(plan.pool_rows),
        layers=config.num_hidden_layers,
        rounds=plan.rounds,
        folds=plan.num_folds,
        max_steps=plan.arguments.max_steps,
    )


def estimate_costs(sizes: RunSizes, stages: Sequence[str] | None = None) -> list[StageCost]:
    """Returns the cost of each stage whose row in `STAGES` has a `cost`.

    Args:
        sizes (`RunSizes`): Sizes of the run.
        stages (`Sequence[str]`, *optional*): Names of stages. Default: the planned ones.
    """
    names = sizes.stages if stages is None else stages
    return [resolve(cost)(sizes, name) for name in names if (cost := STAGES[name].cost)]


def method_costs(sizes: RunSizes) -> list[StageCost]:
    """Returns the cost of each planned stage that trains by one method of `METHODS`."""
    return estimate_costs(sizes, [name for name in sizes.stages if STAGES[name].cost == POOL_METHOD_COST])


def scoring_tokens(rows: int, length: float, *, models: int, passes: int, share_of_layers: float = 1.0) -> float:
    """Returns the tokens of MC dropout: a full pass per model, and stochastic passes through a share of the layers.

    Args:
        rows (`int`): Number of rows.
        length (`float`): Mean number of tokens in a row.
        models (`int`): Number of models.
        passes (`int`): Number of stochastic passes of all models together.
        share_of_layers (`float`, defaults to 1.0): Share of the layers that a stochastic pass runs.
    """
    return rows * length * (models + passes * share_of_layers)


def cost_table(costs: Sequence[StageCost]) -> str:
    """Returns a table with one line per stage: tokens, and their share of the whole.

    Args:
        costs (`Sequence[StageCost]`): Costs of the stages in their order, at least one with tokens.
    """
    total = sum(cost.units for cost in costs)
    titles = [stage_row(cost.stage).lower_title for cost in costs]
    width = max(map(len, titles))
    lines = ["What this run will do (a trained token counts as three forward passes):"]
    for cost, title in zip(costs, titles, strict=True):
        work = [f"{_short(cost.trained):>7} tokens trained"] + [f"{_short(cost.scored)} scored"] * (cost.scored > 0)
        lines.append(f"  {title.ljust(width)}  {100 * cost.units / total:3.0f}%  {', '.join(work)}")
    return "\n".join(lines)


def _short(tokens: float) -> str:
    """Returns a short form of a number of tokens: `1234567` -> `"1.23M"`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g}{letter}"
    return f"{tokens:.0f}"
