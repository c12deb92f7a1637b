"""The cross-fitting stage: models of every stage, trained without a labeled row, predict its label."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel

from hfssl.config.methods import resolve
from hfssl.config.stages import STAGES
from hfssl.data.audit import training_manifest
from hfssl.evaluation.cross_fitting import cross_fit
from hfssl.pipeline.context import Fold, StageContext
from hfssl.pipeline.costs import RunSizes, StageCost, method_costs
from hfssl.pipeline.plan import RunPlan
from hfssl.pipeline.stage_record import StageRecord

__all__ = ["cost", "is_planned", "run"]


def is_planned(plan: RunPlan) -> bool:
    """Returns whether there are folds."""
    return plan.folds is not None


def run(context: StageContext, folder: Path) -> StageRecord:
    """Trains the stages' models without each fold and saves their predictions for its rows."""
    plan = context.plan

    def models(place: Path, number: int, labeled: Dataset) -> dict[str, PreTrainedModel]:
        trained: dict[str, PreTrainedModel] = {}
        title = f"{context.title}, fold {number + 1} of {plan.num_folds}"
        for name in plan.judged:
            fold = Fold(place, number, title, labeled, trained)
            trained[name] = resolve(STAGES[name].train_fold)(context.named(name), fold)
        return trained

    labeled, proxy = context.tokens["labeled"], context.tokens["proxy"]
    cross_fit(folder, labeled, proxy, plan.folds, models, context.tokenizer, context.task)
    used = context.splits["unlabeled"].select(plan.pool_rows)
    return StageRecord(
        manifests=[
            training_manifest(context.name, context.splits["labeled"], "labeled"),
            training_manifest(context.name, used, "unlabeled"),
        ]
    )


def cost(sizes: RunSizes, stage: str) -> StageCost:
    """Returns the tokens of each stage's model, of one student where there are rounds, times the folds."""
    trained = sizes.num_labels_only * sizes.labels_only(sizes.labels)
    trained += sum(cost.trained for cost in method_costs(sizes))
    trained += sizes.student(sizes.labels) if sizes.rounds else 0
    scored = sizes.scored(1) + sizes.head_scored if sizes.rounds else 0
    return StageCost(stage, sizes.folds * trained, sizes.folds * scored)
