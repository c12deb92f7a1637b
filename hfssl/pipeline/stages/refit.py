"""The refit stage: trains the selected stage once more on all labels.

After the verdict and the fit of the temperature, the held-out labels are free for training. They are a fifth of all
labels, and a fifth of a few labels improves the model (scikit-learn's searches do the same with `refit=True`).
"""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, DatasetDict, concatenate_datasets

from hfssl.config.methods import resolve
from hfssl.config.stages import STAGES
from hfssl.data.audit import training_manifest
from hfssl.pipeline.context import StageContext
from hfssl.pipeline.costs import RunSizes, StageCost, method_costs
from hfssl.pipeline.plan import RunPlan
from hfssl.pipeline.stage_record import StageRecord

__all__ = ["cost", "is_planned", "run"]


def is_planned(plan: RunPlan) -> bool:
    """Returns whether the stage is requested; rows of the user's own validation file are never learned from."""
    asked = plan.preset.refit if plan.arguments.refit is None else plan.arguments.refit
    return asked and plan.arguments.validation is None and plan.rows["validation"] > 0


def run(context: StageContext, folder: Path) -> StageRecord:
    """Trains the model of `context.selected_stage` once more and measures it on `test`."""
    labeled = _all_labels(context.tokens)
    trained = resolve(STAGES[context.selected_stage].refit)(context, folder, labeled)
    labels = training_manifest(context.name, _all_labels(context.splits), "labeled")
    return StageRecord(
        metrics=context.held_out.keep(folder, trained.model, ("test",)),
        manifests=[labels, *({**manifest, "stage": context.name} for manifest in trained.manifests)],
        config=trained.config,
        curves=trained.curves,
    )


def cost(sizes: RunSizes, stage: str) -> StageCost:
    """Returns the tokens of the most expensive stage; with rounds, those of new teachers and a student."""
    labels = sizes.labels + sizes.held_out
    costs = [StageCost(stage, sizes.labels_only(labels))]
    costs += [StageCost(stage, cost.trained) for cost in method_costs(sizes)]
    if sizes.rounds:
        trained = sizes.num_teachers * sizes.labels_only(labels) + sizes.student(labels)
        costs.append(StageCost(stage, trained, sizes.scored(sizes.ensemble_size) + sizes.head_scored))
    return max(costs, key=lambda cost: cost.units)


def _all_labels(parts: DatasetDict | dict[str, Dataset]) -> Dataset:
    """Returns all labeled rows that models may learn from, held-out ones included."""
    columns = parts["labeled"].column_names
    return concatenate_datasets([parts["labeled"], parts["validation"].select_columns(columns)])
