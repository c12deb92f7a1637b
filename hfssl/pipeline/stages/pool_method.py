"""A method of `METHODS` as a pool stage: one training run on the labeled rows and the pool.

Such a stage needs only a row of `STAGES`: `"fixmatch": method_stage("fixmatch", "FixMatch")`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel

from hfssl.config.methods import METHODS, Method
from hfssl.config.stages import LABELS_ONLY, STAGES
from hfssl.data.audit import training_manifest
from hfssl.methods.self_training.pseudo_labels import PseudoLabels
from hfssl.methods.self_training.round_store import RoundStore
from hfssl.models.adapters import trainable_copy
from hfssl.models.auto import from_pretrained
from hfssl.pipeline.context import Fold, StageContext
from hfssl.pipeline.costs import RunSizes, StageCost
from hfssl.pipeline.model_factory import description
from hfssl.pipeline.stage_record import StageRecord, Trained
from hfssl.pipeline.stages.labels_only_after_pretext import NAME as AFTER_PRETEXT
from hfssl.pipeline.stages.labels_only_after_pretext import starts_from_pretext

__all__ = ["cost", "refit", "run", "train_fold"]

ANCHORED = "both"  # stage whose unlabeled rows bring the pseudo-labels of self-training


def run(context: StageContext, folder: Path) -> StageRecord:
    """Trains on the labeled rows and the pool, from the labels-only model, and measures the model."""
    start = context.run_folder.stage(AFTER_PRETEXT if starts_from_pretext(context) else LABELS_ONLY) / "model"
    labeled, taught = context.tokens["labeled"], None
    if context.name == ANCHORED:
        taught = np.arange(len(context.plan.pool_rows)), _last_labels(context.run_folder.stage("self_training"))
    trained = _train(context, context.name, folder, context.title, labeled, start, stream=context.name, taught=taught)
    return StageRecord(
        metrics=context.held_out.keep(folder, trained.model),
        manifests=[training_manifest(context.name, context.splits["labeled"], "labeled"), *trained.manifests],
        config=trained.config,
        curves=trained.curves,
    )


def refit(context: StageContext, folder: Path, labeled: Dataset) -> Trained:
    """Trains once more on all labeled rows and the pool, from a labels-only model of these rows."""
    stage, after_pretext = context.selected_stage, starts_from_pretext(context)
    place = folder / "labels_only"
    context.factory.teacher(place, context.title, labeled, stream=f"{stage}-start", after_pretext=after_pretext)
    return _train(context, stage, folder, context.title, labeled, place / "model", stream=stage)


def train_fold(context: StageContext, fold: Fold) -> PreTrainedModel:
    """Trains on the labeled rows outside a fold and the pool, from the labels-only model of these rows."""
    stream = f"{context.name}-{fold.number}"
    start = context.fold_store.model(context.teacher_stage, fold.number)
    taught = None
    if context.name == ANCHORED:  # by the ensemble that taught this fold's student
        taught = context.plan.fold_pool, _last_labels(fold.folder / "rounds")
    place = fold.folder / stream
    return _train(context, context.name, place, fold.title, fold.labeled, start, stream=stream, taught=taught).model


def cost(sizes: RunSizes, stage: str) -> StageCost:
    """Returns the tokens of the training run: `unlabeled_ratio` unlabeled rows for each labeled one."""
    config, settings = _method(stage).config_class, sizes.preset.of_method(stage, sizes.labels)
    ratio = sizes.setting(config, settings, "unlabeled_ratio")
    length = sizes.lengths["labeled"] + ratio * sizes.lengths["unlabeled"]
    return StageCost(stage, sizes.trained(config, settings, length))


def _train(
    context: StageContext,
    stage: str,
    folder: Path,
    title: str,
    labeled: Dataset,
    start: Path,
    *,
    stream: str,
    taught: tuple[np.ndarray, PseudoLabels] | None = None,
) -> Trained:
    """Trains the stage's method.

    Args:
        context (`StageContext`): Context of the stage.
        stage (`str`): Name of the stage in `STAGES`.
        folder (`Path`): Folder of the training run.
        title (`str`): Title of the progress bars.
        labeled (`Dataset`): Tokenized labeled rows.
        start (`Path`): Folder of the model to start from.
        stream (`str`): Name of the random stream.
        taught (`tuple[np.ndarray, PseudoLabels]`, *optional*): Numbers of rows of the pool, and their pseudo-labels.
    """
    method, factory, plan = _method(stage), context.factory, context.plan
    settings = plan.preset.of_method(stage, len(labeled))
    config = factory.config(method.config_class, folder, settings, seed=plan.seed(stream))
    pool = context.splits["unlabeled"].select(plan.pool_rows)
    kept = ("text", "text_pair", *plan.arguments.view_column_names())
    texts = pool.select_columns([name for name in kept if name in pool.column_names])  # no labels
    if taught is not None:
        numbers, labels = taught
        texts = labels.training_rows(texts.select(numbers), plan.task)
    trainer = method.trainer_class(
        trainable_copy(from_pretrained(start)),  # with LoRA it has its adapter
        config,
        train_dataset=labeled,
        unlabeled_dataset=texts,
        processing_class=context.tokenizer,
        title=title,
    )
    trainer.train(resume_from_checkpoint=True)
    manifest = training_manifest(stage, texts, "unlabeled")
    described = {_method_name(stage): description(trainer)}
    return Trained(trainer.model.eval(), described, trainer.state.log_history, [manifest])


def _last_labels(rounds: Path) -> PseudoLabels:
    """Returns the pseudo-labels of the last round in a folder of rounds."""
    store = RoundStore(rounds)
    return store[max(record["round"] for record in store.records())].load_labels()[0]


def _method_name(stage: str) -> str:
    """Returns the name in `METHODS` of the method that a stage runs."""
    name = STAGES[stage].method
    if name is None:
        raise ValueError(f"Expected `method` in the row '{stage}' of STAGES, got none; name one of METHODS there.")
    return name


def _method(stage: str) -> Method:
    return METHODS[_method_name(stage)]
