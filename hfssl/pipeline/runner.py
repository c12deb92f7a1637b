"""Runs the planned stages of `fit`, once each, in order; each writes a record and files into its own folder."""

from __future__ import annotations

from collections.abc import Mapping
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
    costs = estimate_costs(sizes_of(context.plan, context.tokens))
    if not context.plan.arguments.quiet:
        tqdm.write(cost_table(costs))
    for name in context.plan.stages:
        resolve(STAGES[name].run)  # a wrong import path is found before hours of the stages before it
    names = [name for name in context.plan.stages if STAGES[name].product != "final"]
    records, left = {}, TimeLeft({cost.stage: cost.units for cost in costs})
    for name in names:
        done = context.run_folder.done(name) is not None
        records[name] = _run_once(context.named(name))
        if (told := left.after(name, None if done else records[name].seconds)) and not context.plan.arguments.quiet:
            tqdm.write(f"{context.plan.titles[name]} took {_in_words(records[name].seconds)}; {told}.")
    return records


class TimeLeft:
    """Estimates how long the rest of a run takes, from the costs of its stages and the time of those that ran.

    Args:
        units (`Mapping[str, float]`): Stage -> cost, in passes of one token; see `hfssl.pipeline.costs`.
    """

    def __init__(self, units: Mapping[str, float]):
        self._left, self._spent, self._seconds = dict(units), 0.0, 0.0

    def after(self, stage: str, seconds: float | None) -> str | None:
        """Returns the time left in words; `None` where nothing is left, or no stage has run yet.

        Args:
            stage (`str`): Name of the stage that has ended.
            seconds (`float`, *optional*): Its duration; `None` for a stage that an earlier run did.
        """
        units = self._left.pop(stage, 0.0)
        if seconds is not None:
            self._spent, self._seconds = self._spent + units, self._seconds + seconds
        rest = sum(self._left.values())
        if not rest or not self._spent:
            return None
        return f"about {_in_words(rest * self._seconds / self._spent)} are left for the whole run"


def _in_words(seconds: float) -> str:
    """Returns a duration in the unit that fits."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


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
