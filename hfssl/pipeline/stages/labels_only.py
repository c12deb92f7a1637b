"""The labels-only stage: the model that every other stage is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel

from hfssl.data.audit import training_manifest
from hfssl.pipeline.context import Fold, StageContext
from hfssl.pipeline.costs import RunSizes, StageCost
from hfssl.pipeline.model_factory import descriptions
from hfssl.pipeline.plan import RunPlan
from hfssl.pipeline.stage_record import StageRecord, Trained
from hfssl.training.trainer import SSLTrainer

__all__ = ["cost", "fold_model", "is_planned", "record_of", "refit", "run", "train", "train_fold"]


def is_planned(plan: RunPlan) -> bool:
    """Returns `True`: every comparison needs this stage."""
    return True


def run(context: StageContext, folder: Path) -> StageRecord:
    """Trains on the labeled rows and measures the model."""
    return record_of(context, folder, after_pretext=False)


def refit(context: StageContext, folder: Path, labeled: Dataset) -> Trained:
    """Trains once more on all labeled rows, which are tokenized."""
    return train(context, folder, labeled, after_pretext=False)


def train_fold(context: StageContext, fold: Fold) -> PreTrainedModel:
    """Trains on the labeled rows outside a fold."""
    return fold_model(context, fold, stream=f"labels_only-{fold.number}", after_pretext=False)


def cost(sizes: RunSizes, stage: str) -> StageCost:
    """Returns the tokens of the contrastive stage and of fine-tuning."""
    return StageCost(stage, sizes.labels_only(sizes.labels))


def record_of(context: StageContext, folder: Path, *, after_pretext: bool) -> StageRecord:
    """Trains on the labeled rows, from the backbone or from the pretext stage's encoder, and measures the model."""
    trained = train(context, folder, context.tokens["labeled"], after_pretext=after_pretext)
    return StageRecord(
        metrics=context.held_out.keep(folder, trained.model),
        manifests=[training_manifest(context.name, context.splits["labeled"], "labeled")],
        config=trained.config,
        curves=trained.curves,
    )


def train(context: StageContext, folder: Path, labeled: Dataset, *, after_pretext: bool) -> Trained:
    """Trains a labels-only model on tokenized rows."""
    # The same seed with and without pretext: the two models differ only in the encoder.
    seed = context.plan.seed("supervised")
    trainers = context.factory.labels_only(folder, context.title, labeled, seed=seed, after_pretext=after_pretext)
    return Trained(trainers["supervised"].model, descriptions(trainers), _curves(trainers))


def fold_model(context: StageContext, fold: Fold, *, stream: str, after_pretext: bool) -> PreTrainedModel:
    """Trains a labels-only model on the labeled rows outside a fold, with the seed of `stream`."""
    place = fold.folder / f"{context.name}-{fold.number}"
    return context.factory.teacher(
        place,
        fold.title,
        fold.labeled,
        stream=stream,
        after_pretext=after_pretext,
        overrides=context.plan.preset.at(len(fold.labeled)).fold_teachers,
    )


def _curves(trainers: Mapping[str, SSLTrainer]) -> list[dict[str, Any]]:
    """Returns the log of fine-tuning, or, where the preset has none, that of the contrastive stage."""
    logs = [trainer.state.log_history for trainer in trainers.values()]
    return logs[-1] or logs[0]
