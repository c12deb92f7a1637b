"""Draws the report's figures as PNG in data URIs, with matplotlib's object interface and without pyplot.

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
from functools import cache

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

__all__ = [
    "MAX_NAMED_CLASSES",
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
INK, MUTED, RULE, PALE = "#1f2933", "#66707c", "#dfe3e8", "#eef1f4"
ACCENT, GREEN, AMBER, QUIET = "#27598c", "#3b8272", "#b7791f", "#a9bacb"
# `bad` is the color of a class without true rows.
BLUES = LinearSegmentedColormap.from_list(
    "hfssl_blues", ["#f7f9fb", "#c3d4e6", "#6d97c1", ACCENT, "#173a5e"], bad=PALE
)
WIDTH = 7.6  # inches; shown at 100 pixels per inch, drawn at 200 for high-resolution screens
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
    """Holds a PNG as a `data:image/png;base64,...` URI and its display size in pixels."""

    uri: str
    width: int
    height: int


def render(draw: Callable[[Figure], None], height: float, width: float = WIDTH) -> Picture:
    """Runs `draw` on a new figure of `width` x `height` inches."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(uri, round(100 * width), round(100 * height))


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


def class_counts(counts: Mapping[str, Sequence[int]], label_names: Sequence[str]) -> Picture:
    """Draws bars of rows per class, one panel per split.

    Args:
        counts (`Mapping[str, Sequence[int]]`): Split -> rows of each class, each of length K.
        label_names (`Sequence[str]`): The K class names. With more than 30 classes, bars are sorted and have no names.
    """
    named = len(label_names) <= MAX_NAMED_CLASSES
    names = drawable_names(label_names)

    def draw(figure: Figure) -> None:
        panels = np.atleast_1d(figure.subplots(1, len(counts), sharey=named, squeeze=False)[0])
        for axes, (split, numbers) in zip(panels, counts.items(), strict=True):
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

    return render(draw, 0.5 + 0.24 * len(names) if named else 2.3)


def learning_curves(curves: Mapping[str, tuple[str, Mapping[str, Sequence[tuple[int, float]]]]]) -> Picture:
    """Draws loss against step, one panel per stage.

    Args:
        curves (`Mapping[str, tuple[str, Mapping[str, Sequence[tuple[int, float]]]]]`): Stage -> (title, series name ->
            [(step, value), ...]). The first series of a stage is solid with a running mean, the others are dashed.
    """
    columns = min(3, len(curves))
    lines = math.ceil(len(curves) / columns)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, (stage, (title, series)) in zip(panels, curves.items(), strict=False):
            axes.set_title(title)
            for number, (name, points) in enumerate(series.items()):
                steps, values = np.array(points, dtype=np.float64).T
                if number == 0:
                    _draw_smoothed(axes, steps, values, stage_color(stage), name)
                else:
                    axes.plot(steps, values, color=INK, linewidth=1.1, linestyle="--", marker=".", label=name)
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
            _grid(axes, "y")
            if len(series) > 1:
                axes.legend(fontsize=7.5)
        for axes in panels[len(curves) :]:
            axes.set_visible(False)
        panels[0].set_ylabel("loss")

    return render(draw, 2.3 * lines)


def _draw_smoothed(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str, name: str) -> None:
    window = max(1, len(values) // 15)
    if window == 1:
        axes.plot(steps, values, color=color, linewidth=1.6, marker="." if len(values) < 25 else None, label=name)
        return
    axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
    weights = np.ones(2 * window + 1)
    smooth = np.convolve(values, weights, mode="same") / np.convolve(np.ones_like(values), weights, mode="same")
    axes.plot(steps, smooth, color=color, linewidth=1.8, label=name)


def accuracy_by_stage(rows: Sequence[AccuracyRow], final_stage: str, label: str = "accuracy, %") -> Picture:
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
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.margins(x=0.12)
        _grid(axes, "x")
        axes.spines["left"].set_visible(False)

    return render(draw, 0.65 + 0.42 * len(rows))


def reliability(panels: Sequence[tuple[str, str, Sequence[ReliabilityBin]]]) -> Picture:
    """Draws reliability diagrams (accuracy against confidence) above histograms of confidence.

    Args:
        panels (`Sequence[tuple[str, str, Sequence[ReliabilityBin]]]`): (stage, title, bins) of one or two stages.
    """

    def draw(figure: Figure) -> None:
        grid = figure.subplots(
            2, len(panels), squeeze=False, sharex=True, sharey="row", gridspec_kw={"height_ratios": [3.4, 1]}
        )
        for column, (stage, title, bins) in enumerate(panels):
            above, below = grid[0][column], grid[1][column]
            filled = [b for b in bins if b.count]
            middles, width = [(b.low + b.high) / 2 for b in filled], bins[0].high - bins[0].low
            color, most = stage_color(stage), max(b.count for b in filled)
            above.bar(middles, [b.accuracy for b in filled], width * 0.92, color=_tint(color))
            above.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
            sizes = [8 + 52 * b.count / most for b in filled]
            above.scatter(
                [b.confidence for b in filled],
                [b.accuracy for b in filled],
                sizes,
                color=color,
                zorder=3,
                clip_on=False,
            )
            above.set_title(title)
            above.set(xlim=(0, 1), ylim=(0, 1.02), aspect="auto")
            below.bar(middles, [b.count for b in filled], width * 0.92, color=QUIET)
            below.set_xlabel("confidence")
            below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
            _grid(above, "y")
            _grid(below, "y")
        grid[0][0].set_ylabel("accuracy")
        grid[1][0].set_ylabel("rows")

    return render(draw, 3.7, width=WIDTH if len(panels) > 1 else 4.4)


def rounds(
    numbers: Sequence[int],
    selected: Sequence[int],
    lines: Mapping[str, Sequence[float | None]],
) -> Picture:
    """Draws fractions in percent by round (left) and numbers of selected pseudo-labels (right).

    Args:
        numbers (`Sequence[int]`): Round numbers, length R.
        selected (`Sequence[int]`): Number of rows selected for pseudo-labels in each round, length R.
        lines (`Mapping[str, Sequence[float | None]]`): Title -> fractions in `[0, 1]`, length R, `None` where unknown.
    """
    colors = (ACCENT, GREEN, AMBER)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[1.9, 1])
        for color, (title, values) in zip(colors, lines.items(), strict=False):
            known = [(n, 100 * v) for n, v in zip(numbers, values, strict=True) if v is not None]
            left.plot(*zip(*known, strict=True), "o-", color=color, markersize=4, linewidth=1.6, label=title)
        left.set_title("Agreement and accuracy, %")
        left.margins(y=0.15)
        if lines:
            left.legend(fontsize=7.5, loc="upper left", bbox_to_anchor=(0, -0.2), ncols=1, borderaxespad=0)
        right.bar(numbers, selected, color=QUIET, width=0.6)
        right.set_title("Pseudo-labels selected")
        for axes in (left, right):
            axes.set_xlabel("round")
            axes.set_xticks(numbers if len(numbers) <= 12 else numbers[:: math.ceil(len(numbers) / 12)])
            axes.set_xlim(min(numbers) - 0.6, max(numbers) + 0.6)
            axes.yaxis.set_major_locator(MaxNLocator(5))
            _grid(axes, "y")

    return render(draw, 2.9)


def confusion(matrix: np.ndarray, label_names: Sequence[str]) -> Picture:
    """Draws a row-normalised confusion matrix, with counts in cells for at most 12 classes and names for at most 30.

    Args:
        matrix (`np.ndarray`): Counts, shape `[K, K]`, row = true class, column = predicted class.
        label_names (`Sequence[str]`): The K class names.
    """
    size = len(label_names)
    totals = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        image = axes.imshow(100 * share, cmap=BLUES, vmin=0, vmax=100, interpolation="nearest")
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted class", ylabel="true class")
        if size <= MAX_NAMED_CLASSES:
            names = drawable_names(label_names, longest=20)
            upright = max(map(len, names)) <= 60 / size
            axes.set_xticks(range(size), names, color=INK, rotation=0 if upright else 90)
            axes.set_yticks(range(size), names, color=INK)
            axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
            axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
            axes.grid(which="minor", color="white", linewidth=1.2)
            axes.tick_params(which="minor", length=0)
        if size <= MAX_ANNOTATED_CLASSES:
            for (row, column), value in np.ndenumerate(share):
                color = "white" if value > 0.5 else (INK if matrix[row, column] else "#b5bdc6")
                axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=color, fontsize=8)
        bar = figure.colorbar(image, ax=axes, shrink=0.55, aspect=22, pad=0.02)
        bar.set_label("% of the true class")
        bar.outline.set_visible(False)

    side = 5.6 if size > MAX_ANNOTATED_CLASSES else min(5.6, 2.6 + 0.42 * size)
    return render(draw, side, width=side + 1.2)
