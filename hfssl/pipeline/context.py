"""`StageContext`: data, settings and functions for the stages of `fit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.config.stages import LABELS_ONLY
from hfssl.data.splits import SemiSupervisedSplits
from hfssl.pipeline.fold_store import FoldStore
from hfssl.pipeline.held_out import HeldOutPredictions
from hfssl.pipeline.model_factory import ModelFactory
from hfssl.pipeline.plan import RunPlan
from hfssl.pipeline.run_folder import RunFolder
from hfssl.tasks.base import Task

__all__ = ["Fold", "StageContext", "make_context"]


@dataclass(frozen=True, eq=False)
class StageContext:
    """Holds data, settings and functions for a stage: the argument of each stage's `run(context, folder)`.

    Args:
        name (`str`): Name of the stage that runs, in `STAGES`.
        plan (`RunPlan`): Plan of the run.
        run_folder (`RunFolder`): Folders and records of the stages.
        splits (`SemiSupervisedSplits`): Parts of the data, as text.
        tokens (`dict[str, Dataset]`): Parts of the data, tokenized.
        tokenizer (`PreTrainedTokenizerBase`): The backbone's tokenizer.
        factory (`ModelFactory`): Factory of models, training arguments and labels-only models.
        held_out (`HeldOutPredictions`): Object that measures and saves the model of a stage.
        selected_stage (`str`, *optional*): Stage that the verdict selected; `None` before the verdict.
    """

    name: str
    plan: RunPlan
    run_folder: RunFolder
    splits: SemiSupervisedSplits
    tokens: dict[str, Dataset]
    tokenizer: PreTrainedTokenizerBase
    factory: ModelFactory
    held_out: HeldOutPredictions
    selected_stage: str | None = None

    @property
    def title(self) -> str:
        """Returns the title of the stage's progress bars."""
        return self.plan.titles[self.name]

    @property
    def task(self) -> Task:
        """Returns the kind of prediction."""
        return self.plan.task

    @property
    def label_names(self) -> list[str]:
        """Returns the names of the K classes."""
        return self.splits.manifest["label_names"]

    def named(self, name: str, *, selected_stage: str | None = None) -> StageContext:
        """Returns the context of another stage of this run.

        Args:
            name (`str`): Name of the stage, in `STAGES`.
            selected_stage (`str`, *optional*): Stage that the verdict selected, for the stages after it.
        """
        return replace(self, name=name, selected_stage=selected_stage)

    @property
    def fold_store(self) -> FoldStore:
        """Returns the files of the stage `folds`, which runs only where there are folds."""
        return self.held_out.folds

    @property
    def teacher_stage(self) -> str:
        """Returns the labels-only stage whose models teach, of which the stage `folds` has recorded the choice."""
        record = self.run_folder.done("folds")
        return LABELS_ONLY if record is None else record.config["folds"]["teacher_stage"]

    def pool(self) -> Dataset:
        """Returns the tokenized unlabeled rows that pool stages train on."""
        return self.tokens["unlabeled"].select(self.plan.pool_rows)


@dataclass(frozen=True, eq=False)
class Fold:
    """Holds one fold of the labels: the labeled rows without it.

    Args:
        folder (`Path`): Folder of the fold's files.
        number (`int`): Number of the fold, from 0.
        title (`str`): Title of the progress bars.
        labeled (`Dataset`): Tokenized labeled rows outside the fold, to train on.
        models (`Mapping[str, PreTrainedModel]`): Models of earlier stages by name, trained on the same rows; for a
            pool stage the labels-only model is among them.
    """

    folder: Path
    number: int
    title: str
    labeled: Dataset
    models: Mapping[str, PreTrainedModel]


def make_context(
    plan: RunPlan,
    run_folder: RunFolder,
    splits: SemiSupervisedSplits,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokens: dict[str, Dataset] | None = None,
) -> StageContext:
    """Tokenizes the data and returns the context of the first stage.

    Args:
        plan (`RunPlan`): Plan of the run.
        run_folder (`RunFolder`): Folders and records of the stages.
        splits (`SemiSupervisedSplits`): Parts of the data, as text.
        tokenizer (`PreTrainedTokenizerBase`): The backbone's tokenizer.
        tokens (`dict[str, Dataset]`, *optional*): Parts of the data, tokenized, where they are known.
    """
    arguments = plan.arguments
    if tokens is None:
        tokens = {name: plan.task.encode(part, tokenizer, arguments.max_length) for name, part in splits.items()}
    label_names = splits.manifest["label_names"]
    encoder = run_folder.stage("pretext") / "encoder"
    factory = ModelFactory(arguments, plan.preset, tokenizer, label_names, encoder)
    held_out = HeldOutPredictions(run_folder, tokens, tokenizer, label_names, plan.task, folds=plan.folds)
    return StageContext(plan.stages[0], plan, run_folder, splits, tokens, tokenizer, factory, held_out)
