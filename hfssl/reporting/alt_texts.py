"""Says in words what the pictures of the report show, for readers who cannot see them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from hfssl.metrics.calibration import ReliabilityBin
from hfssl.reporting.formatting import percent

__all__ = [
    "accuracy_by_stage",
    "class_counts",
    "confusion",
    "learning_curve",
    "reliability",
    "round_lines",
    "selected",
]

MAX_LISTED = 12  # numbers that one can still listen to; of more, the ends are named
MAX_NAME = 40  # characters


def class_counts(split: str, numbers: Sequence[int], label_names: Sequence[str]) -> str:
    """Describes bars of rows per class.

    Args:
        split (`str`): Name of the part.
        numbers (`Sequence[int]`): Rows of each class, length K.
        label_names (`Sequence[str]`): The K class names.
    """
    of_classes = list(zip(map(_spoken, label_names), numbers, strict=True))
    if len(of_classes) <= MAX_LISTED:
        return f"Bars, rows per class in the part {split}: {_listed(of_classes)}."
    order = sorted(of_classes, key=lambda one: -one[1])
    return (
        f"Bars, rows per class in the part {split}, {len(order)} classes: most in {_listed(order[:3])}; fewest in "
        f"{_listed(order[-3:])}."
    )


def accuracy_by_stage(rows: Sequence[tuple[str, float, float | None, float | None, bool]], label: str) -> str:
    """Describes dots with intervals.

    Args:
        rows (`Sequence[tuple[str, float, float | None, float | None, bool]]`): Title of the stage, value in `[0, 1]`,
            ends of its interval where known, and whether it is the final stage.
        label (`str`): What is measured.
    """
    said = []
    for title, value, low, high, is_final in rows:
        interval = "" if low is None or high is None else f" (interval {percent(low)} to {percent(high)})"
        said.append(f"{title}{', the final stage,' if is_final else ''} {percent(value)}{interval}")
    return f"Dots, {label}: {'; '.join(said)}."


def learning_curve(title: str, series: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Describes the lines of the losses of one stage.

    Args:
        title (`str`): Title of the stage.
        series (`Mapping[str, Sequence[tuple[int, float]]]`): Name of the loss -> (step, value), in order.
    """
    said = []
    for name, points in series.items():
        (first, start), (last, end) = points[0], points[-1]
        best, least = min(points, key=lambda point: point[1])
        said.append(
            f"{name} loss {start:.3g} at step {first:,}, {end:.3g} at step {last:,}, lowest {least:.3g} at {best:,}"
        )
    return f"Lines, {title}: {'; '.join(said)}."


def reliability(title: str, bins: Sequence[ReliabilityBin]) -> str:
    """Describes a reliability diagram.

    Args:
        title (`str`): Title of the diagram.
        bins (`Sequence[ReliabilityBin]`): Its bins; empty ones are left out.
    """
    said = [f"{percent(b.confidence)} on {b.count:,} rows, {percent(b.accuracy)} right" for b in bins if b.count]
    return f"Reliability diagram, {title}. Mean confidence and share of right answers, in percent: {'; '.join(said)}."


def round_lines(numbers: Sequence[int], lines: Mapping[str, Sequence[float | None]]) -> str:
    """Describes the lines of fractions by round.

    Args:
        numbers (`Sequence[int]`): Round numbers, length R.
        lines (`Mapping[str, Sequence[float | None]]`): Title -> fractions in `[0, 1]`, length R, `None` where unknown.
    """
    said = []
    for title, values in lines.items():
        known = [(f"round {n}", percent(v)) for n, v in zip(numbers, values, strict=True) if v is not None]
        said.append(f"{title}: {_listed(_ends(known))}")
    return f"Lines by round, in percent. {'; '.join(said)}."


def selected(numbers: Sequence[int], counts: Sequence[int]) -> str:
    """Describes the bars of selected pseudo-labels.

    Args:
        numbers (`Sequence[int]`): Round numbers, length R.
        counts (`Sequence[int]`): Number of rows selected in each round, length R.
    """
    rows = [(f"round {n}", count) for n, count in zip(numbers, counts, strict=True)]
    return f"Bars, pseudo-labels selected: {_listed(_ends(rows))}."


def confusion(matrix: np.ndarray, label_names: Sequence[str]) -> str:
    """Describes a confusion matrix: its diagonal, and what each class is taken for; of many, the weakest classes.

    Args:
        matrix (`np.ndarray`): Counts, shape `[K, K]`, row = true class, column = predicted class.
        label_names (`Sequence[str]`): The K class names.
    """
    totals, right = matrix.sum(axis=1), np.diag(matrix)
    seen = [i for i in np.argsort(right / np.maximum(totals, 1), kind="stable") if totals[i]]
    said = []
    for i in seen if len(seen) <= MAX_LISTED else seen[:3]:
        wrong = np.where(np.arange(len(matrix)) == i, 0, matrix[i])
        most = int(wrong.argmax())
        taken = f", most often taken for {_spoken(label_names[most])} ({wrong[most]:,})" if wrong[most] else ""
        said.append(f"{_spoken(label_names[i])} {right[i]:,} of {totals[i]:,}{taken}")
    weakest = "weakest first" if len(seen) <= MAX_LISTED else "the three weakest"
    share = percent(right.sum() / max(1, totals.sum()))
    return f"Confusion matrix of {len(matrix)} classes, {share}% on the diagonal. Right, {weakest}: {'; '.join(said)}."


def _listed(pairs: Sequence[tuple[str, int | str]]) -> str:
    return ", ".join(f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in pairs)


def _ends(pairs: list[tuple[str, int | str]]) -> list[tuple[str, int | str]]:
    """Leaves out the middle of a long list."""
    return pairs if len(pairs) <= MAX_LISTED else [*pairs[:2], *pairs[-2:]]


def _spoken(name: str) -> str:
    """Returns a name on one line, shortened, without characters that turn or hide others."""
    line = " ".join("".join(c for c in name if unicodedata.category(c) not in ("Cc", "Cf") or c.isspace()).split())
    line = line if len(line) <= MAX_NAME else line[: MAX_NAME - 1] + "…"
    return line or "(empty name)"
