"""The cross-fitting stage: students of each fold, of which the verdict sees what they say about the rows of the fold.

They learn the pseudo-labels of an ensemble that has seen nothing of their fold, from a part of the pool and in fewer
steps than the final student.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel
from transformers.utils import logging

from hfssl.config.methods import resolve
from hfssl.config.stages import LABELS_ONLY, STAGES
from hfssl.data.audit import evidence_manifest, training_manifest
from hfssl.evaluation.cross_fitting import cross_fit
from hfssl.models.auto import from_pretrained
from hfssl.pipeline.context import Fold, StageContext
from hfssl.pipeline.costs import RunSizes, StageCost, method_costs
from hfssl.pipeline.plan import RunPlan
from hfssl.pipeline.stage_record import StageRecord

__all__ = ["cost", "is_planned", "run"]

logger = logging.get_logger(__name__)


def is_planned(plan: RunPlan) -> bool:
    """Returns whether each stage is judged by models of the folds.

    Not where there are held-out rows, which judge the final models themselves, unless the user asks for folds. A
    preset without `fold_students` judges self-training by the ensembles that would teach them.
    """
    if plan.folds is None or not plan.pool_stages:
        return False
    if plan.rows["validation"] and plan.arguments.cross_fit is None:
        return False
    if whole := [name for name in plan.pool_stages if STAGES[name].train_fold is None]:
        logger.warning(
            "The stage '%s' cannot be trained on a part of the labels: no folds judge it. Hold labels out by "
            "--validation-fraction, or give --cross-fit 0 to switch this warning off.",
            whole[0],
        )
        return False
    return plan.preset.fold_students is not None or plan.pool_stages != ["self_training"]


def run(context: StageContext, folder: Path) -> StageRecord:
    """Trains the pool stages' models without each fold and saves their predictions for its rows."""
    plan = context.plan

    def models(place: Path, number: int, labeled: Dataset) -> dict[str, PreTrainedModel]:
        known = context.fold_store.model(LABELS_ONLY, number)
        trained: dict[str, PreTrainedModel] = {LABELS_ONLY: from_pretrained(known)}
        title = f"{context.title}, fold {number + 1} of {plan.num_folds}"
        for name in plan.pool_stages:
            fold = Fold(place, number, title, labeled, trained)
            trained[name] = resolve(STAGES[name].train_fold)(context.named(name), fold)
        return {name: trained[name] for name in plan.pool_stages}

    proxy = {"proxy": context.tokens["proxy"]}
    cross_fit(folder, context.tokens["labeled"], proxy, plan.folds, models, context.tokenizer)
    return StageRecord(manifests=_manifests(context))


def cost(sizes: RunSizes, stage: str) -> StageCost:
    """Returns the tokens of each pool stage's model, of one student where there are rounds, times the folds."""
    trained = sum(cost.trained for cost in method_costs(sizes))
    trained += sizes.fold_student if sizes.rounds else 0
    scored = sizes.head_scored * min(1.0, sizes.preset.fold_pool_rows / max(1, sizes.pool)) if sizes.rounds else 0
    return StageCost(stage, sizes.folds * trained, sizes.folds * scored)


def _manifests(context: StageContext) -> list[dict]:
    """Returns what each fold's model has learned from, and of which rows its predictions are evidence."""
    plan, rows, found = context.plan, context.splits["labeled"], []
    pool = context.splits["unlabeled"].select(plan.pool_rows)
    for fold in range(plan.num_folds):
        seen, unseen = rows.select(np.flatnonzero(plan.folds != fold)), rows.select(np.flatnonzero(plan.folds == fold))
        for name in plan.pool_stages:
            model, taught = f"cross_fitting/{name}-{fold}", name == "self_training"
            used = pool.select(plan.fold_pool) if taught else pool
            teacher = [f"folds/{context.teacher_stage}-{fold}"] if taught else []
            found.append(training_manifest(context.name, seen, "labeled", model=model))
            found.append(training_manifest(context.name, used, "unlabeled", model=model, taught_by=teacher))
            found.append(evidence_manifest(context.name, unseen, model=model))
    return found
