"""A method of `METHODS` as a pool stage: one training run on the labeled rows and the pool.

Such a stage needs only a row of `STAGES`: `"fixmatch": method_stage("fixmatch", "FixMatch")`.
"""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel

from hfssl.config.methods import METHODS, Method
from hfssl.config.stages import STAGES
from hfssl.data.audit import training_manifest
from hfssl.pipeline.context import Fold, StageContext
from hfssl.pipeline.costs import RunSizes, StageCost
from hfssl.pipeline.model_factory import description
from hfssl.pipeline.stage_record import StageRecord, Trained
from hfssl.pipeline.stages.labels_only_after_pretext import starts_from_pretext

__all__ = ["cost", "refit", "run", "train_fold"]


def run(context: StageContext, folder: Path) -> StageRecord:
    """Trains on the labeled rows and the pool, and measures the model."""
    trained = _train(context, context.name, folder, context.title, context.tokens["labeled"], stream=context.name)
    return StageRecord(
        metrics=context.held_out.keep(folder, trained.model),
        manifests=[training_manifest(context.name, context.splits["labeled"], "labeled"), *trained.manifests],
        config=trained.config,
        curves=trained.curves,
    )


def refit(context: StageContext, folder: Path, labeled: Dataset) -> Trained:
    """Trains once more on all labeled rows, which are tokenized, and the pool."""
    stage = context.selected_stage
    return _train(context, stage, folder, context.title, labeled, stream=stage)


def train_fold(context: StageContext, fold: Fold) -> PreTrainedModel:
    """Trains on the labeled rows outside a fold and the pool."""
    stream = f"{context.name}-{fold.number}"
    return _train(context, context.name, fold.folder / stream, fold.title, fold.labeled, stream=stream).model


def cost(sizes: RunSizes, stage: str) -> StageCost:
    """Returns the tokens of the training run: `unlabeled_ratio` unlabeled rows for each labeled one."""
    config, settings = _method(stage).config_class, sizes.preset.methods.get(stage, {})
    ratio = sizes.setting(config, settings, "unlabeled_ratio")
    length = sizes.lengths["labeled"] + ratio * sizes.lengths["unlabeled"]
    return StageCost(stage, sizes.trained(config, settings, length))


def _train(context: StageContext, stage: str, folder: Path, title: str, labeled: Dataset, *, stream: str) -> Trained:
    method, factory, plan = _method(stage), context.factory, context.plan
    config = factory.config(
        method.config_class, folder, dict(plan.preset.methods.get(stage, {})), seed=plan.seed(stream)
    )
    model = factory.classifier(config.seed, after_pretext=starts_from_pretext(context))
    pool = context.splits["unlabeled"].select(plan.pool_rows)
    texts = pool.select_columns([name for name in ("text", "text_pair") if name in pool.column_names])  # no labels
    trainer = method.trainer_class(
        model,
        config,
        train_dataset=labeled,
        unlabeled_dataset=texts,
        processing_class=context.tokenizer,
        peft_config=factory.peft_config(model),
        title=title,
    )
    trainer.train(resume_from_checkpoint=True)
    manifest = training_manifest(stage, texts, "unlabeled")
    settings = {_method_name(stage): description(trainer)}
    return Trained(trainer.model.eval(), settings, trainer.state.log_history, [manifest])


def _method_name(stage: str) -> str:
    """Returns the name in `METHODS` of the method that a stage runs."""
    name = STAGES[stage].method
    if name is None:
        raise ValueError(f"Expected `method` in the row '{stage}' of STAGES, got none; name one of METHODS there.")
    return name


def _method(stage: str) -> Method:
    return METHODS[_method_name(stage)]
