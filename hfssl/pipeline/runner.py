"""Runs the planned stages of `fit`, once each, in order; each writes a record and files into its own folder."""

from __future__ import annotations

from pathlib import Path

from tqdm.auto import tqdm
from transformers.utils import logging

from hfssl.config.methods import resolve
from hfssl.config.stages import STAGES
from hfssl.errors import TrainingError
from hfssl.pipeline.context import StageContext
from hfssl.pipeline.costs import cost_table, estimate_costs, sizes_of
from hfssl.pipeline.held_out import LOGITS
from hfssl.pipeline.stage_record import StageRecord

__all__ = ["reported", "run_final_stages", "run_stages"]

logger = logging.get_logger(__name__)


def run_stages(context: StageContext) -> dict[str, StageRecord]:
    """Runs the stages before the verdict that are not done yet; returns the record of each, in their order.

    Args:
        context (`StageContext`): Context of the run.
    """
    if not context.plan.arguments.quiet:
        tqdm.write(cost_table(estimate_costs(sizes_of(context.plan, context.tokens))))
    for name in context.plan.stages:
        resolve(STAGES[name].run)  # a wrong import path is found before hours of the stages before it
    names = [name for name in context.plan.stages if STAGES[name].product != "final"]
    return {name: _run_once(context.named(name)) for name in names}


def run_final_stages(context: StageContext, selected_stage: str) -> dict[str, StageRecord]:
    """Runs the stages after the verdict; returns the record of each.

    There are none where the selected stage has no `refit`: its own model is then the final one.

    Args:
        context (`StageContext`): Context of the run.
        selected_stage (`str`): Stage that the verdict selected.
    """
    names = [name for name in context.plan.stages if STAGES[name].product == "final"]
    if names and STAGES[selected_stage].refit is None:
        logger.warning(
            "The stage '%s' cannot be trained once more on all labels: its own model is the final one. Give "
            "--no-refit to switch this warning off.",
            selected_stage,
        )
        return {}
    return {name: _run_once(context.named(name, selected_stage=selected_stage)) for name in names}


def reported(records: dict[str, StageRecord]) -> dict[str, StageRecord]:
    """Returns the records of the stages that make a classifier, each with time and settings of earlier stages."""
    found = {}
    for name, record in records.items():
        if record.metrics is not None:
            for earlier in (stage for stage in STAGES[name].includes if stage in records):
                record = record.including(records[earlier])
            found[name] = record
    return found


def _run_once(context: StageContext) -> StageRecord:
    return context.run_folder.run_once(context.name, lambda folder: _work(context, folder))


def _work(context: StageContext, folder: Path) -> StageRecord:
    """Runs the stage's function; refuses what it returns before the stage is marked as done."""
    stage = STAGES[context.name]
    record = resolve(stage.run)(context, folder)
    if not isinstance(record, StageRecord):
        raise TrainingError(
            f"Expected a StageRecord from {stage.run}, the function of the stage '{context.name}'; got "
            f"{type(record).__name__}: return one."
        )
    if record.metrics is not None and not (folder / LOGITS).is_file():
        raise TrainingError(
            f"Expected the predictions of the stage '{context.name}' in '{folder / LOGITS}', found no such file: let "
            f"{stage.run} take the metrics of its record from context.held_out.keep(folder, model)."
        )
    return record
