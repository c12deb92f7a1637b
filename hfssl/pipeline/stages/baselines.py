"""The baselines that all models are compared with: the most frequent label, and a probe of the frozen backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hfssl.evaluation.baselines import MAJORITY, PROBE, baseline_logits, out_of_fold_logits
from hfssl.inference.scoring import mean_embeddings
from hfssl.pipeline.context import StageContext
from hfssl.pipeline.held_out import LOGITS, MEASURED
from hfssl.pipeline.plan import RunPlan
from hfssl.pipeline.stage_record import StageRecord
from hfssl.reporting.results import OUT_OF_FOLD
from hfssl.runtime.files import write_arrays

__all__ = ["is_planned", "run"]


def is_planned(plan: RunPlan) -> bool:
    """Returns whether one embedding represents a row, as the baselines need."""
    return plan.task.row_vectors


def run(context: StageContext, folder: Path) -> StageRecord:
    """Stores the logits of each baseline for the labeled rows, without their fold, and for the held-out parts."""
    outputs, task = len(context.label_names), context.task
    model = context.factory.classifier(context.plan.seed("baselines"), after_pretext=False)
    names = ("labeled", *(name for name in MEASURED if len(context.tokens[name])))
    embedded = {name: mean_embeddings(model, context.tokens[name], context.tokenizer) for name in names}
    labels = context.held_out.labels("labeled")
    found = {}
    for baseline in (MAJORITY, PROBE):
        rows = {name: values[:, :0] if baseline == MAJORITY else _unit(values) for name, values in embedded.items()}
        found[f"{baseline}/{OUT_OF_FOLD}"] = out_of_fold_logits(
            rows["labeled"], labels, context.plan.folds, outputs, task
        )
        for name in names[1:]:
            found[f"{baseline}/{name}"] = baseline_logits(rows["labeled"], labels, rows[name], outputs, task)
    write_arrays(folder / LOGITS, found)
    return StageRecord()


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
