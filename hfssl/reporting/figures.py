"""Draws the report's figures as PNG in data URIs, with matplotlib's object interface and without pyplot.

A figure is a list of panels, each a picture as wide as the page of a telephone: the page sets as many side by side as
there is room for, and no reader meets shrunken words.
Text from the data is drawn literally: `$...$` is not mathematics, and a name with characters that the font lacks is
replaced by its class number (see `drawable_names`).
"""

from __future__ import annotations

import base64
import io
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator

from hfssl.config.stages import stage_color
from hfssl.metrics.calibration import ReliabilityBin
from hfssl.reporting import alt_texts

__all__ = [
    "MAX_NAMED_CLASSES",
    "PANEL_WIDTH",
    "AccuracyRow",
    "Picture",
    "accuracy_by_stage",
    "class_counts",
    "confusion",
    "drawable_names",
    "learning_curves",
    "reliability",
    "rounds",
]

MAX_NAMED_CLASSES = 30  # with more classes, names would be too small to read
MAX_ANNOTATED_CLASSES = 12
WHITE_ABOVE = 0.58  # share of a confusion matrix from which on white is easier to read than ink
INK, MUTED, RULE, PALE = "#1f2933", "#5d6772", "#dfe3e8", "#eef1f4"
# Each has a contrast of 3 or more with white, so that all can see bars and lines.
ACCENT, GREEN, AMBER, QUIET = "#27598c", "#3b8272", "#b7791f", "#7d93aa"
# `bad` is the color of a class without true rows.
BLUES = LinearSegmentedColormap.from_list(
    "hfssl_blues", ["#f7f9fb", "#c3d4e6", "#6d97c1", ACCENT, "#173a5e"], bad=PALE
)
PANEL_WIDTH = 3.6  # inches; shown at 100 pixels per inch, drawn at 200 for high-resolution screens
WIDE_SIDE = 5.6  # inches of a confusion matrix whose names need more than a panel; the page lets it scroll
CHARACTER = 0.072  # inches, on average, of a character of the font below
STYLE = {
    "text.parse_math": False,
    "text.usetex": False,
    "font.family": "DejaVu Sans",  # part of matplotlib, so that pictures are the same everywhere
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class AccuracyRow:
    """Holds one stage's accuracy in `[0, 1]` with its 95% interval, where the number of rows is known."""

    stage: str
    title: str
    accuracy: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Picture:
    """Holds a PNG as a `data:image/png;base64,...` URI, its display size in pixels, and what is seen on it."""

    uri: str
    width: int
    height: int
    alt: str


def render(draw: Callable[[Figure], None], alt: str, height: float, width: float = PANEL_WIDTH) -> Picture:
    """Runs `draw` on a new figure of `width` x `height` inches."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(uri, round(100 * width), round(100 * height), alt)


@cache
def _drawable_characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())


def drawable_names(names: Sequence[str], longest: int = 24) -> list[str]:
    """Shortens names to one line; empty, undrawable or (once shortened) equal names become numbers: `#3`."""
    drawable = []
    for index, name in enumerate(names):
        line = " ".join(name.split())
        line = "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cf"))
        if len(line) > longest:
            line = line[: longest - 1] + "…"
        known = all(ord(character) in _drawable_characters() for character in line)
        drawable.append(line if line and known else f"#{index}")
    uses = Counter(drawable)
    return [line if uses[line] == 1 else f"#{index}" for index, line in enumerate(drawable)]


def _tint(color: str) -> tuple[float, float, float]:
    """Mixes the color with white; the result is opaque, so that grid lines are hidden."""
    red, green, blue = (0.3 * part + 0.7 for part in to_rgb(color))
    return red, green, blue


def _grid(axes: Axes, axis: str) -> None:
    axes.grid(visible=True, axis=axis)
    axes.spines["left" if axis == "y" else "bottom"].set_visible(False)


def class_counts(counts: Mapping[str, Sequence[int]], label_names: Sequence[str]) -> list[Picture]:
    """Draws bars of rows per class, one panel per split.

    Args:
        counts (`Mapping[str, Sequence[int]]`): Split -> rows of each class, each of length K.
        label_names (`Sequence[str]`): The K class names. With more than 30 classes, bars are sorted and have no names.
    """
    named = len(label_names) <= MAX_NAMED_CLASSES
    names = drawable_names(label_names)

    def draw(figure: Figure, split: str, numbers: Sequence[int]) -> None:
        axes = figure.subplots()
        axes.set_title(f"{split} ({sum(numbers):,})")
        color = ACCENT if split == "labeled" else QUIET
        if named:
            positions = np.arange(len(names))
            axes.barh(positions, numbers, color=color, height=0.66)
            for position, number in zip(positions, numbers, strict=True):
                axes.annotate(
                    f"{number:,}", (number, position), (4, 0), textcoords="offset points", va="center", color=MUTED
                )
            axes.set_yticks(positions, names, color=INK)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_xlim(0, max(1, *numbers) * 1.25)
            axes.set_xticks([])
            axes.spines[["bottom", "left"]].set_visible(False)
        else:
            axes.bar(np.arange(len(names)), sorted(numbers, reverse=True), color=color, width=1.0)
            axes.set_xlabel("classes, largest first")
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            _grid(axes, "y")

    height = 0.5 + 0.24 * len(names) if named else 2.3
    return [
        render(
            partial(draw, split=split, numbers=numbers), alt_texts.class_counts(split, numbers, label_names), height
        )
        for split, numbers in counts.items()
    ]


def learning_curves(curves: Mapping[str, tuple[str, Mapping[str, Sequence[tuple[int, float]]]]]) -> list[Picture]:
    """Draws loss against step, one panel per stage.

    Args:
        curves (`Mapping[str, tuple[str, Mapping[str, Sequence[tuple[int, float]]]]]`): Stage -> (title, series name ->
            [(step, value), ...]). The first series of a stage is solid with a running mean, the others are dashed.
    """

    def draw(figure: Figure, stage: str, title: str, series: Mapping[str, Sequence[tuple[int, float]]]) -> None:
        axes = figure.subplots()
        axes.set_title(title)
        for number, (name, points) in enumerate(series.items()):
            steps, values = np.array(points, dtype=np.float64).T
            if number == 0:
                _draw_smoothed(axes, steps, values, stage_color(stage), name)
            else:
                axes.plot(steps, values, color=INK, linewidth=1.1, linestyle="--", marker=".", label=name)
        axes.set(xlabel="step", ylabel="loss")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        _grid(axes, "y")
        if len(series) > 1:
            axes.legend()

    return [
        render(partial(draw, stage=stage, title=title, series=series), alt_texts.learning_curve(title, series), 2.3)
        for stage, (title, series) in curves.items()
    ]


def _draw_smoothed(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str, name: str) -> None:
    window = max(1, len(values) // 15)
    if window == 1:
        axes.plot(steps, values, color=color, linewidth=1.6, marker="." if len(values) < 25 else None, label=name)
        return
    axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
    weights = np.ones(2 * window + 1)
    smooth = np.convolve(values, weights, mode="same") / np.convolve(np.ones_like(values), weights, mode="same")
    axes.plot(steps, smooth, color=color, linewidth=1.8, label=name)


def accuracy_by_stage(rows: Sequence[AccuracyRow], final_stage: str, label: str = "accuracy, %") -> list[Picture]:
    """Draws a dot and a 95% interval for each stage; the dot of the final stage is filled."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for position, row in enumerate(rows):
            color, value = stage_color(row.stage), 100 * row.accuracy
            if row.low is not None and row.high is not None:
                axes.plot([100 * row.low, 100 * row.high], [position] * 2, color=color, linewidth=2.2, alpha=0.45)
            face = color if row.stage == final_stage else "white"
            axes.plot([value], [position], "o", markersize=8, color=color, markerfacecolor=face, markeredgewidth=1.8)
            axes.annotate(
                f"{value:.1f}", (value, position), (0, 8), textcoords="offset points", ha="center", color=INK
            )
        axes.set_yticks(range(len(rows)), [row.title for row in rows], color=INK)
        axes.set_ylim(len(rows) - 0.4, -0.75)
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.margins(x=0.12)
        _grid(axes, "x")
        axes.spines["left"].set_visible(False)

    measured = [(row.title, row.accuracy, row.low, row.high, row.stage == final_stage) for row in rows]
    return [render(draw, alt_texts.accuracy_by_stage(measured, label), 0.65 + 0.42 * len(rows))]


def reliability(panels: Sequence[tuple[str, str, Sequence[ReliabilityBin]]]) -> list[Picture]:
    """Draws reliability diagrams (accuracy against confidence) above histograms of confidence.

    Args:
        panels (`Sequence[tuple[str, str, Sequence[ReliabilityBin]]]`): (stage, title, bins) of one or two stages.
    """

    def draw(figure: Figure, stage: str, title: str, bins: Sequence[ReliabilityBin]) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
        filled = [b for b in bins if b.count]
        middles, width = [(b.low + b.high) / 2 for b in filled], bins[0].high - bins[0].low
        color, most = stage_color(stage), max(b.count for b in filled)
        above.bar(middles, [b.accuracy for b in filled], width * 0.92, color=_tint(color))
        above.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        sizes = [8 + 52 * b.count / most for b in filled]
        confidences, accuracies = [b.confidence for b in filled], [b.accuracy for b in filled]
        above.scatter(confidences, accuracies, sizes, color=color, zorder=3, clip_on=False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold")
        above.set(xlim=(0, 1), ylim=(0, 1.02), aspect="auto", ylabel="accuracy")
        below.bar(middles, [b.count for b in filled], width * 0.92, color=QUIET)
        below.set(xlabel="confidence", ylabel="rows")
        below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        _grid(above, "y")
        _grid(below, "y")

    return [
        render(partial(draw, stage=stage, title=title, bins=bins), alt_texts.reliability(title, bins), 3.7)
        for stage, title, bins in panels
    ]


def rounds(
    numbers: Sequence[int],
    selected: Sequence[int],
    lines: Mapping[str, Sequence[float | None]],
) -> list[Picture]:
    """Draws fractions in percent by round, where any is known, and numbers of selected pseudo-labels.

    Args:
        numbers (`Sequence[int]`): Round numbers, length R.
        selected (`Sequence[int]`): Number of rows selected for pseudo-labels in each round, length R.
        lines (`Mapping[str, Sequence[float | None]]`): Title -> fractions in `[0, 1]`, length R, `None` where unknown.
    """

    def draw_lines(figure: Figure) -> None:
        axes = figure.subplots()
        for color, (title, values) in zip((ACCENT, GREEN, AMBER), lines.items(), strict=False):
            known = [(n, 100 * v) for n, v in zip(numbers, values, strict=True) if v is not None]
            axes.plot(*zip(*known, strict=True), "o-", color=color, markersize=4, linewidth=1.6, label=title)
        axes.set_title("Agreement and accuracy, %")
        axes.margins(y=0.15)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=1, borderaxespad=0)
        _by_round(axes, numbers)

    def draw_selected(figure: Figure) -> None:
        axes = figure.subplots()
        axes.bar(numbers, selected, color=QUIET, width=0.6)
        axes.set_title("Pseudo-labels selected")
        _by_round(axes, numbers)

    panels = [render(draw_lines, alt_texts.round_lines(numbers, lines), 2.9)] if lines else []
    return [*panels, render(draw_selected, alt_texts.selected(numbers, selected), 2.9)]


def _by_round(axes: Axes, numbers: Sequence[int]) -> None:
    axes.set_xlabel("round")
    axes.set_xticks(numbers if len(numbers) <= 12 else numbers[:: math.ceil(len(numbers) / 12)])
    axes.set_xlim(min(numbers) - 0.6, max(numbers) + 0.6)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    _grid(axes, "y")


def confusion(matrix: np.ndarray, label_names: Sequence[str]) -> list[Picture]:
    """Draws a row-normalised confusion matrix, with counts in cells for at most 12 classes and names for at most 30.

    Where names or counts need more room than a panel has, the picture is wider, and the page lets it scroll.

    Args:
        matrix (`np.ndarray`): Counts, shape `[K, K]`, row = true class, column = predicted class.
        label_names (`Sequence[str]`): The K class names.
    """
    size = len(label_names)
    totals = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    named, annotated = size <= MAX_NAMED_CLASSES, size <= MAX_ANNOTATED_CLASSES
    names = drawable_names(label_names, longest=20) if named else []
    beside = 0.5 + CHARACTER * max(map(len, names), default=0)  # inches left of the matrix
    needed = size * max(0.185, CHARACTER * len(f"{matrix.max():,}") + 0.04) if named else 0.0
    side = PANEL_WIDTH - beside
    if needed > side:
        side = max(needed, min(WIDE_SIDE, 0.3 * size))
    upright = CHARACTER * max(map(len, names), default=0) <= 0.95 * side / size

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        image = axes.imshow(100 * share, cmap=BLUES, vmin=0, vmax=100, interpolation="nearest")
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted class", ylabel="true class")
        if named:
            axes.set_xticks(range(size), names, color=INK, rotation=0 if upright else 90)
            axes.set_yticks(range(size), names, color=INK)
            axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
            axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
            axes.grid(which="minor", color="white", linewidth=1.2)
            axes.tick_params(which="minor", length=0)
        if annotated:
            for (row, column), value in np.ndenumerate(share):
                color = "white" if value > WHITE_ABOVE else (INK if matrix[row, column] else MUTED)
                axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=color, fontsize=8)
        bar = figure.colorbar(image, ax=axes, orientation="horizontal", aspect=28, pad=0.03)
        bar.set_label("% of the true class")
        bar.outline.set_visible(False)

    above = side + 0.85 + (0.0 if upright or not named else beside - 0.5)
    return [render(draw, alt_texts.confusion(matrix, label_names), above, width=side + beside)]
