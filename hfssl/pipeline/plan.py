"""`RunPlan`: stages, rows and titles of a run, from its arguments, preset and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset
from transformers.utils import logging

from hfssl.config.arguments import FitArguments
from hfssl.config.methods import resolve
from hfssl.config.stages import STAGES
from hfssl.data.duplicates import near_duplicate_components
from hfssl.data.splits import SemiSupervisedSplits
from hfssl.evaluation.cross_fitting import fold_numbers
from hfssl.pipeline.presets import Preset
from hfssl.runtime.seeding import derive_seed, numpy_generator
from hfssl.tasks.base import Task
from hfssl.tasks.registry import get_task

__all__ = ["RunPlan", "make_plan"]

logger = logging.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class RunPlan:
    """Describes the stages of a run of `fit` and their rows.

    Args:
        arguments (`FitArguments`): The run's arguments.
        preset (`Preset`): Settings of the stages.
        rows (`Mapping[str, int]`): Part of the split -> number of its rows.
        rounds (`int`): Maximum number of rounds of self-training; 0 for none.
        pool_rows (`np.ndarray`): Indices of the unlabeled rows that pool stages train on, `[P]`, ascending.
        folds (`np.ndarray`, *optional*): Fold of each labeled row, `[L]`, -1 for a row in none; `None` for no folds.
        stages (`tuple[str, ...]`, defaults to `()`): Names of the stages, in the order in which they run.
    """

    arguments: FitArguments
    preset: Preset
    rows: Mapping[str, int]
    rounds: int
    pool_rows: np.ndarray
    folds: np.ndarray | None = None
    stages: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """Returns the kind of prediction."""
        return get_task(self.arguments.task)

    @property
    def titles(self) -> dict[str, str]:
        """Returns stage -> title of its progress bars: `"[2/3] self-training"`."""
        count = len(self.stages)
        return {name: f"[{i}/{count}] {STAGES[name].lower_title}" for i, name in enumerate(self.stages, start=1)}

    @property
    def judged(self) -> list[str]:
        """Returns the stages that the verdict compares, labels only among them."""
        return [name for name in self.stages if STAGES[name].product == "classifier"]

    @property
    def pool_stages(self) -> list[str]:
        """Returns the stages whose classifier learns from the unlabeled rows."""
        return [name for name in self.judged if STAGES[name].reads_pool]

    @property
    def num_folds(self) -> int:
        """Returns the number of folds of the labels; 0 for none."""
        return 0 if self.folds is None else int(self.folds.max()) + 1

    @property
    def fold_pool(self) -> np.ndarray:
        """Returns the positions in the pool of the rows for the folds' students, ascending, the same in each fold."""
        count, most = len(self.pool_rows), self.preset.fold_pool_rows
        if count <= most:
            return np.arange(count)
        return np.sort(numpy_generator(self.arguments.seed, "fold_pool").choice(count, size=most, replace=False))

    def seed(self, stream: str) -> int:
        """Returns the seed of one stage or model, from the run's seed; below 2^31, which transformers requires.

        Args:
            stream (`str`): Name of the stage or model.
        """
        return derive_seed(self.arguments.seed, stream) % 2**31


def make_plan(arguments: FitArguments, preset: Preset, splits: SemiSupervisedSplits) -> RunPlan:
    """Returns the plan of a run. Each row of `STAGES` has a rule that decides whether the stage takes part.

    Encoders, classifiers and the folds' teachers come first, in the order of `STAGES`; then stages that add evidence
    for the verdict; then those after the verdict.

    Args:
        arguments (`FitArguments`): The run's arguments.
        preset (`Preset`): Settings of the stages.
        splits (`SemiSupervisedSplits`): Parts of the data.
    """
    rows = {name: len(part) for name, part in splits.items()}
    rounds = preset.self_training.get("rounds", 0) if arguments.rounds is None else arguments.rounds
    pool_rows = _pool_rows(rows["unlabeled"], preset.pool_rows(rows["unlabeled"], rows["labeled"]), arguments.seed)
    if "self_training" not in arguments.pool_methods or not rows["unlabeled"]:
        rounds = 0
    plan = RunPlan(arguments, preset, rows, rounds, pool_rows)
    plan = replace(plan, folds=_folds(plan, splits))
    for products in (("encoder", "classifier", "folds"), ("predictions",), ("final",)):
        plan = _with_stages(plan, products)
    return plan


def _with_stages(plan: RunPlan, products: tuple[str, ...]) -> RunPlan:
    for name, stage in STAGES.items():
        asked = not stage.on_request or name in plan.arguments.pool_methods
        if stage.product in products and asked:
            if resolve(stage.planned)(plan) if stage.planned else plan.rows["unlabeled"] > 0:
                plan = replace(plan, stages=(*plan.stages, name))
    return plan


def _pool_rows(count: int, most: int, seed: int) -> np.ndarray:
    """Returns `[P]` ascending row numbers: all unlabeled rows, or a random choice of as many as the preset allows."""
    if count <= most:
        return np.arange(count)
    return np.sort(numpy_generator(seed, "pool").choice(count, size=most, replace=False))


def _folds(plan: RunPlan, splits: SemiSupervisedSplits) -> np.ndarray | None:
    """Returns the fold of each labeled row, `[L]`; `None` where no folds are requested or none can be made."""
    wanted = plan.preset.cross_fit if plan.arguments.cross_fit is None else plan.arguments.cross_fit
    if not wanted:
        return None
    part = splits["labeled"]
    numbers = fold_numbers(plan.task.strata(part["label"][:]), _units(part), wanted, seed=plan.seed("cross_fit"))
    if numbers is None:
        logger.warning(
            "Most classes have one or two labels, or all of them in one group: no folds can be made of them, and the "
            "verdict rests on earlier runs. Three labels of each class make folds possible."
        )
    return numbers


def _units(part: Dataset) -> np.ndarray:
    """Returns a name for each row, `[L]`, the same for rows of one group, or else for near duplicates."""
    pairs = part["text_pair"][:] if "text_pair" in part.column_names else None
    near = [f"\0{number}" for number in near_duplicate_components(part["text"][:], pairs)]
    groups = part["group"][:] if "group" in part.column_names else [""] * len(near)
    return np.array([group or component for group, component in zip(groups, near, strict=True)])
