"""The labels-only stage that starts from the encoder of the pretext stage."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel

from hfssl.config.stages import LABELS_ONLY
from hfssl.evaluation.verdict import judge
from hfssl.pipeline.context import Fold, StageContext
from hfssl.pipeline.costs import RunSizes, StageCost
from hfssl.pipeline.plan import RunPlan
from hfssl.pipeline.stage_record import StageRecord, Trained
from hfssl.pipeline.stages import labels_only

__all__ = ["cost", "is_planned", "refit", "run", "starts_from_pretext", "train_fold"]

NAME = "labels_only_after_pretext"


def is_planned(plan: RunPlan) -> bool:
    """Returns whether there is a pretext stage."""
    return "pretext" in plan.stages


def run(context: StageContext, folder: Path) -> StageRecord:
    """Trains on the labeled rows and measures the model."""
    return labels_only.record_of(context, folder, after_pretext=True)


def refit(context: StageContext, folder: Path, labeled: Dataset) -> Trained:
    """Trains once more on all labeled rows, which are tokenized."""
    return labels_only.train(context, folder, labeled, after_pretext=True)


def train_fold(context: StageContext, fold: Fold) -> PreTrainedModel:
    """Trains on the labeled rows outside a fold."""
    return labels_only.fold_model(context, fold, stream=f"pretext-{fold.number}", after_pretext=True)


def cost(sizes: RunSizes, stage: str) -> StageCost:
    """Returns the tokens of the contrastive stage and of fine-tuning."""
    return StageCost(stage, sizes.labels_only(sizes.labels))


def starts_from_pretext(context: StageContext) -> bool:
    """Returns whether pool stages start from the encoder of the pretext stage, by labels that no model has seen."""
    if NAME not in context.plan.stages:
        return False
    found = context.held_out.evidence([LABELS_ONLY, NAME])
    return judge(found.probs, found.labels, task=context.task, **found.difference).use_unlabeled
