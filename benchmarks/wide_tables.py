"""What `compare.py --grid wide --show` prints: tables of the kept cells, paired comparisons, and the goals."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cells import HFSSL, METHODS
from code_versions import changed_code
from compare_tables import by_rows
from grid import BUDGETS, WIDE
from peers import PEERS
from pools import OWN
from variants import changed_settings
from wide_goals import goals
from wide_statistics import METRICS, Gain, Numbers, mean_and_error, paired, set_means, value

__all__ = [
    "aligned",
    "by_label",
    "comparisons",
    "gain_told",
    "read_wide",
    "version_changes",
    "wide_report",
    "with_error",
]

NAMED = 3  # changed modules or settings that are named; of more, how many


def read_wide(folder: Path) -> list[dict[str, Any]]:
    """All kept cells, by method and variant, then seed, budget and data set in the order of the grid."""
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    methods, budgets = [*METHODS], list(BUDGETS)

    def order(cell: Mapping[str, Any]) -> tuple[Any, ...]:
        method = methods.index(cell["method"]) if cell["method"] in methods else len(methods)
        return (method, cell["variant"], cell["seed"], budgets.index(cell["budget"]), WIDE.index(cell["dataset"]))

    return sorted(kept, key=order)


def by_label(kept: Iterable[Mapping[str, Any]]) -> dict[str, Numbers]:
    """Method and variant -> place -> numbers, of pools as they are; hfssl's stages follow under names of their own."""
    numbers: dict[str, Numbers] = {}
    for cell in kept:
        if cell["pool"] != OWN:
            continue
        place, label = (cell["dataset"], cell["budget"], cell["seed"]), label_of(cell)
        numbers.setdefault(label, {})[place] = dict(cell)
        for stage, metrics in cell.get("stages", {}).items():
            numbers.setdefault(f"{label}: {stage}", {})[place] = metrics
    return numbers


def label_of(cell: Mapping[str, Any]) -> str:
    """The method of a cell with its variant."""
    return f"{cell['method']}+{cell['variant']}" if cell["variant"] else cell["method"]


def version_changes(cell: Mapping[str, Any]) -> list[str]:
    """What of a kept cell is another today: modules, and settings of its preset or peer."""
    settings = cell["settings"]
    if cell["method"] in HFSSL:
        changed = changed_settings(HFSSL[cell["method"]], cell["overrides"], settings)
    elif cell["method"] in PEERS:
        today = PEERS[cell["method"]].settings
        changed = [name for name in {**settings, **today} if settings.get(name) != today.get(name)]
    else:
        return []  # of an earlier commit by intent
    return [*changed_code(cell["code"]), *changed]


# --- all of it -------------------------------------------------------------------------------------------------------


def wide_report(kept: Sequence[Mapping[str, Any]], against: str | None = None) -> str:
    """Tables, notes, comparisons and goals.

    Args:
        kept: cells, as `read_wide` returns them.
        against: method, variant or stage that all are compared with. Default: variants with their preset, hfssl with
            each peer and with its own labels only.
    """
    numbers = by_label(kept)
    if against is not None and against not in numbers:
        raise SystemExit(f"Expected one of {', '.join(numbers)} to compare with, got {against!r}.")
    parts = [means_table(numbers), *(sets_table(numbers, metric) for metric in METRICS)]
    parts += ["\n".join(_notes(kept)), comparisons(numbers, against)]
    parts += ["\n".join(["Goals", *goals(numbers, kept)])]
    return "\n\n".join(part for part in parts if part)


def means_table(numbers: Mapping[str, Numbers]) -> str:
    """A row for each method: mean over sets with its standard error, worst cell, calibration, seconds."""
    places = {place for cells in numbers.values() for place in cells}
    lines = [["method", *METRICS.values(), "worst cell", "ECE", "debiased", "seconds", "cells"]]
    for label, cells in numbers.items():
        lines.append([label])
        for metric in METRICS:
            means = set_means({place: value(cell, metric) for place, cell in cells.items()})
            lines[-1].append(with_error(*mean_and_error(list(means.values()))))
        worst = min(cells, key=lambda place: value(cells[place], "accuracy"))
        lines[-1].append(f"{value(cells[worst], 'accuracy'):.1f} {_told(worst)}")
        lines[-1] += [_error_of(cells, name) for name in ("ece", "debiased_ece")]
        seconds = [cell["seconds"] for cell in cells.values() if cell.get("seconds") is not None]
        lines[-1] += [f"{statistics.mean(seconds):.0f}" if seconds else "-", f"{len(cells)}/{len(places)}"]
    head = (
        "In points: mean over data sets (of the mean over budgets and seeds) ± its standard error. Worst cell: lowest"
        "\naccuracy. Seconds: mean of the timed cells. Rows with fewer cells than others: see the comparisons below."
    )
    return f"{head}\n\n{aligned(lines)}"


def sets_table(numbers: Mapping[str, Numbers], metric: str) -> str:
    """A row for each data set, a column for each method and for hfssl's labels only."""
    shown = {label: cells for label, cells in numbers.items() if ": " not in label or label.endswith(": labels_only")}
    present = {place[0] for cells in shown.values() for place in cells}
    lines = [[METRICS[metric], *shown]]
    for dataset in (name for name in WIDE if name in present):
        lines.append([dataset])
        for cells in shown.values():
            means = set_means({place: value(cell, metric) for place, cell in cells.items() if place[0] == dataset})
            lines[-1].append(f"{means[dataset]:.1f}" if means else "-")
    return aligned(lines)


def comparisons(numbers: Mapping[str, Numbers], against: str | None = None) -> str:
    """Paired gains on the cells that both have; see `wide_report` for what is compared."""
    lines = [["gain of", "over", *METRICS.values(), "sets ahead", "worst set", "worst cell", "seconds", "cells"]]
    for label, rival in _pairs(numbers, against):
        ours, theirs = numbers[label], numbers[rival]
        gains = {metric: paired(ours, theirs, metric) for metric in METRICS}
        if not gains["both"].by_place:
            continue
        both = gains["both"]
        ahead = sum(gain > 0 for gain in both.by_set.values())
        worst_set, worst = (min(by, key=by.__getitem__) for by in (both.by_set, both.by_place))
        lines.append([label, rival, *map(gain_told, gains.values()), f"{ahead}/{len(both.by_set)}"])
        lines[-1] += [f"{both.by_set[worst_set]:+.1f} {worst_set}", f"{both.by_place[worst]:+.1f} {_told(worst)}"]
        lines[-1] += [_ratio(ours, theirs), str(len(both.by_place))]
    if len(lines) < 2:
        return ""
    head = (
        "Paired gains in points: mean over data sets ± its standard error, * where it counts (over twice that). Worst"
        "\nset and cell: of the mean of accuracy and macro-F1. Seconds: ratio of the sums where both are timed."
    )
    return f"{head}\n\n{aligned(lines, left=2)}"


def _pairs(numbers: Mapping[str, Numbers], against: str | None) -> list[tuple[str, str]]:
    if against is not None:
        return [(label, against) for label in numbers if label != against]
    pairs = []
    for label in (label for label in numbers if "+" in label):  # a variant's stage, too, with the preset's
        method, _, stage = label.partition(": ")
        pairs.append((label, method.partition("+")[0] + (f": {stage}" if stage else "")))
    for preset in HFSSL:
        pairs += [(preset, rival) for rival in (*PEERS, f"{preset}: labels_only", preset.replace("hfssl", "before"))]
    return [(label, rival) for label, rival in pairs if label in numbers and rival in numbers]


def _notes(kept: Sequence[Mapping[str, Any]]) -> list[str]:
    """Cells of older versions, rows that differ, peers that were stopped early."""
    older: dict[str, list[list[str]]] = {}
    rows: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    stopped: dict[str, None] = {}
    for cell in kept:
        older.setdefault(label_of(cell), []).append(version_changes(cell))
        if cell["method"] not in PEERS and cell["method"] not in HFSSL:
            continue
        place = (cell["dataset"], cell["budget"], cell["seed"], cell["pool"])
        rows.setdefault(place, []).append({**cell, "method": label_of(cell)})
        if capped := cell["notes"].get("capped"):
            stopped[f"{cell['method']} on {cell['dataset']} ({cell['budget']}): stopped after {capped}"] = None
    lines = []
    for label, changes in older.items():
        if count := sum(map(bool, changes)):
            names = list(dict.fromkeys(name for found in changes for name in found))
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            told = f"{', '.join(names[:NAMED])}{more} changed since; --stale runs them again"
            lines.append(f"OLDER VERSION, {label}: {count} of {len(changes)} cells; {told}")
    for place, cells in rows.items():
        if len(seen := by_rows(cells)) > 1:
            told = " saw other rows than ".join(", ".join(cell["method"] for cell in group) for group in seen)
            lines.append(f"NOT COMPARABLE, {' '.join(map(str, place))}: {told}; run them with --again")
    return [*lines, *stopped]


# --- words -----------------------------------------------------------------------------------------------------------


def aligned(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column < left else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def with_error(mean: float, error: float) -> str:
    return f"{mean:.1f}" if math.isnan(error) else f"{mean:.1f} ± {error:.1f}"


def gain_told(gain: Gain) -> str:
    error = "" if math.isnan(gain.error) else f" ± {gain.error:.2f}"
    return f"{gain.mean:+.2f}{error}{'*' if gain.counts else ' '}"


def _told(place: tuple[str, str, int]) -> str:
    return "/".join(map(str, place))


def _error_of(cells: Numbers, name: str) -> str:
    """Mean of a calibration error over the cells that have it."""
    found = [100 * cell[name] for cell in cells.values() if cell.get(name) is not None]
    return f"{statistics.mean(found):.1f}" if found else "-"


def _ratio(ours: Numbers, theirs: Numbers) -> str:
    common = [place for place in ours if all(cells.get(place, {}).get("seconds") for cells in (ours, theirs))]
    seconds = [sum(cells[place]["seconds"] for place in common) for cells in (ours, theirs)]
    return f"{seconds[0] / seconds[1]:.2f}" if common else "-"
