"""The refit stage: what the verdict selected, trained once more on all labels.

The labels that were held out for the verdict and the temperature have done their work. They are a fifth of all, and
with a few labels a fifth is worth points (as in scikit-learn's searches, `refit=True`).
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
    """Returns whether it is asked for; rows of a validation file of the user's own are never learned from."""
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
    """Returns the tokens of the most expensive stage: of new teachers and a student where there are rounds."""
    labels = sizes.labels + sizes.held_out
    costs = [StageCost(stage, sizes.labels_only(labels))]
    costs += [StageCost(stage, cost.trained) for cost in method_costs(sizes)]
    if sizes.rounds:
        trained = sizes.num_teachers * sizes.labels_only(labels) + sizes.student(labels)
        costs.append(StageCost(stage, trained, sizes.scored(sizes.ensemble_size) + sizes.head_scored))
    return max(costs, key=lambda cost: cost.units)


def _all_labels(parts: DatasetDict | dict[str, Dataset]) -> Dataset:
    """All rows with a label that may be learned from, held-out ones included."""
    columns = parts["labeled"].column_names
    return concatenate_datasets([parts["labeled"], parts["validation"].select_columns(columns)])
