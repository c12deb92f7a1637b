"""Means, standard errors and paired comparisons over the data sets of the wide grid."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["METRICS", "Gain", "Numbers", "Place", "mean_and_error", "paired", "set_means", "value"]

Place = tuple[str, str, int]  # data set, budget, seed
Numbers = dict[Place, dict[str, Any]]  # what one method has reached where
METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "both": "mean of both"}
ERRORS_THAT_COUNT = 2.0


def value(cell: Mapping[str, Any], metric: str) -> float:
    """A metric of a cell in points; `both` is the mean of accuracy and macro-F1."""
    if metric == "both":
        return 50 * (cell["accuracy"] + cell["macro_f1"])
    return 100 * cell[metric]


def set_means(points: Mapping[Place, float]) -> dict[str, float]:
    """Data set -> mean over its budgets of the mean over the seeds."""
    means: dict[str, dict[str, list[float]]] = {}
    for (dataset, budget, _), number in points.items():
        means.setdefault(dataset, {}).setdefault(budget, []).append(number)
    return {
        dataset: statistics.mean(statistics.mean(seeds) for seeds in budgets.values())
        for dataset, budgets in means.items()
    }


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and its standard error: standard deviation / sqrt(number); NaN for fewer than two values."""
    if not values:
        return math.nan, math.nan
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.mean(values), error


@dataclass(frozen=True)
class Gain:
    """How much one method is above another in points, where both have cells.

    Attributes:
        by_set: data set -> mean gain.
        by_place: the gain of each cell.
        mean, error: over the data sets, with its standard error.
    """

    by_set: dict[str, float]
    by_place: dict[Place, float]
    mean: float
    error: float

    @property
    def counts(self) -> bool:
        """Whether the mean is over twice its standard error away from 0."""
        return abs(self.mean) > ERRORS_THAT_COUNT * self.error


def paired(ours: Numbers, theirs: Numbers, metric: str | Callable[[Mapping[str, Any]], float] = "accuracy") -> Gain:
    """The gain of `ours` over `theirs` in a metric, or in what a function of a cell returns, on common cells."""
    measure = metric if callable(metric) else lambda cell: value(cell, metric)
    by_place = {place: measure(cell) - measure(theirs[place]) for place, cell in ours.items() if place in theirs}
    by_set = set_means(by_place)
    return Gain(by_set, by_place, *mean_and_error(list(by_set.values())))
