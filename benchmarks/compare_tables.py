"""The table, the goals and the picture of the grid of `compare.py`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cells import HFSSL, METHODS
from grid import GRID, LABELS_PER_CLASS
from peers import LABELS_ONLY, PEERS

from hfssl.config.stages import STAGES

__all__ = [
    "best",
    "by_method",
    "by_rows",
    "draw",
    "gains_of",
    "goal_line",
    "goals",
    "none_below",
    "read_cells",
    "report",
]

# What hfssl's verdict selects from; a refit comes after it.
CHOICES = [name for name, stage in STAGES.items() if stage.product == "classifier"]

Place = tuple[str, int]  # data set and seed
Numbers = dict[Place, dict[str, Any]]  # what one method has reached where


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """All kept cells, by method, then in the order of the grid and of the other sets."""
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    order = [*LABELS_PER_CLASS]
    return sorted(kept, key=lambda cell: (METHODS.index(cell["method"]), order.index(cell["dataset"]), cell["seed"]))


def by_method(kept: Iterable[Mapping[str, Any]]) -> dict[str, Numbers]:
    """Method -> place -> numbers; hfssl's stages follow their preset under names of their own."""
    numbers: dict[str, Numbers] = {}
    for cell in kept:
        place = (cell["dataset"], cell["seed"])
        numbers.setdefault(cell["method"], {})[place] = dict(cell)
        for stage, metrics in cell.get("stages", {}).items():
            numbers.setdefault(f"{cell['method']}: {stage}", {})[place] = metrics
    return numbers


def report(kept: Sequence[Mapping[str, Any]]) -> str:
    """The table, what must be known to read it, and the goals."""
    numbers = by_method(kept)
    parts = [_table(numbers), "\n".join(_notes(kept)), "\n".join(["Goals", *goals(numbers)])]
    return "\n\n".join(part for part in parts if part)


def _table(numbers: Mapping[str, Numbers]) -> str:
    places = {place for cells in numbers.values() for place in cells}
    datasets = [name for name in LABELS_PER_CLASS if any(dataset == name for dataset, _ in places)]
    head = ["accuracy", *(f"{name}@{LABELS_PER_CLASS[name]}" for name in datasets)]
    head += ["mean", "macro-F1", "ECE", "seconds", "GiB", "cells", "timed"]
    lines = [head]
    for method, cells in numbers.items():
        whole = {dataset for dataset, _ in cells} == set(datasets)
        memory = max(cell.get("peak_memory_bytes", 0) for cell in cells.values()) / 2**30
        lines.append([method, *(_spread(_of(cells, dataset)) for dataset in datasets)])
        lines[-1] += [f"{100 * _mean(cells, name):.1f}" if whole else "-" for name in ("accuracy", "macro_f1", "ece")]
        seconds = [cell["seconds"] for cell in cells.values() if cell["seconds"] is not None]
        lines[-1] += [f"{sum(seconds):,.0f}" if seconds else "-", f"{memory:.2f}" if memory else ""]
        lines[-1] += [f"{len(cells)}/{len(places)}", f"{len(seconds)}"]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join(
        ["In points, mean ± standard deviation over the seeds. Seconds: sum of the timed cells. GiB: peak.", "", *rows]
    )


def _of(cells: Numbers, dataset: str, name: str = "accuracy") -> list[float]:
    return [cell[name] for (where, _), cell in cells.items() if where == dataset]


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{100 * values[0]:.1f}" if values else "-"
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def _mean(cells: Numbers, name: str) -> float:
    """Mean over the data sets of the mean over the seeds."""
    return statistics.mean(statistics.mean(_of(cells, dataset, name)) for dataset in {where for where, _ in cells})


def _notes(kept: Iterable[Mapping[str, Any]]) -> list[str]:
    """Peers that were stopped early, and places where not all methods saw the same rows."""
    stopped: dict[str, None] = {}
    rows: dict[Place, list[Mapping[str, Any]]] = {}
    for cell in kept:
        if capped := cell["notes"].get("capped"):
            stopped[f"{cell['method']} on {cell['dataset']}: stopped after {capped}, to stay below 15 minutes"] = None
        rows.setdefault((cell["dataset"], cell["seed"]), []).append(cell)
    return [*stopped] + [
        f"NOT COMPARABLE, {dataset} seed {seed}: "
        + " saw other rows than ".join(", ".join(cell["method"] for cell in cells) for cells in seen)
        + "; run them with --again"
        for (dataset, seed), cells in rows.items()
        if len(seen := by_rows(cells)) > 1
    ]


def by_rows(cells: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The cells in groups that saw the same rows; how labels or pool are divided counts only where it must."""
    name = "whole_digest" if all("whole_digest" in cell["rows"] for cell in cells) else "digest"
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault(cell["rows"][name], []).append(cell)
    return list(groups.values())


def goals(numbers: Mapping[str, Numbers]) -> list[str]:
    """What the project set itself, checked on the cells that both sides of a comparison have."""
    standard, setfit = (numbers.get(name, {}) for name in ("hfssl_standard", "setfit"))
    peer, trainer = (best(numbers, names, standard) for names in (PEERS, LABELS_ONLY))
    lines = []
    for title, rival, goal in (("best peer", peer, 3.0), ("best labels-only Trainer", trainer, 4.0)):
        gains = gains_of(standard, numbers.get(rival, {}))
        gain = _average(gains)
        text = f"standard minus {title}, {rival}: {gain:+.1f} points"
        lines.append(goal_line(text, f"{goal}", gain >= goal, len(gains)))
    for title, rival in (("that Trainer", trainer), ("its own labels only", "hfssl_standard: labels_only")):
        gains = _over_seeds(gains_of(standard, numbers.get(rival, {})))
        title = f"data sets where standard is over 1 point below {title}"
        lines.append(none_below(title, gains, 1, "data sets"))
    gains = gains_of(numbers.get("hfssl_quick", {}), numbers.get(trainer, {}))
    gain = _average(gains)
    lines.append(goal_line(f"quick minus that Trainer: {gain:+.1f} points", "above 0", gain > 0, len(gains)))
    for preset in ("standard", "quick"):
        lines += _verdict_goals(numbers, f"hfssl_{preset}")
    for preset, goal in (("standard", 2), ("quick", 0.5)):
        ours = numbers.get(f"hfssl_{preset}", {})
        common = [place for place in ours if all(cells.get(place, {}).get("seconds") for cells in (ours, setfit))]
        seconds = [sum(cells[place]["seconds"] for place in common) for cells in (ours, setfit)]
        ratio = seconds[0] / seconds[1] if common else 0.0
        lines.append(
            goal_line(f"{preset} / SetFit seconds: {ratio:.2f}", f"at most {goal}", ratio <= goal, len(common))
        )
    return lines


def _verdict_goals(numbers: Mapping[str, Numbers], method: str) -> list[str]:
    """What the verdict's selection of a stage cost against selecting by the test part."""
    regrets, gains = {}, {}
    for place, cell in numbers.get(method, {}).items():
        choices = {name: 100 * stage["accuracy"] for name, stage in cell.get("stages", {}).items() if name in CHOICES}
        if len(choices) > 1:
            regrets[place] = max(choices.values()) - choices[cell["selected_stage"]]
            gains["/".join(map(str, place))] = choices[cell["selected_stage"]] - choices["labels_only"]
    name, regret = method.removeprefix("hfssl_"), _average(regrets)
    return [
        goal_line(
            f"{name}, mean regret of the verdict: {regret:.1f} points", "at most 0.5", regret <= 0.5, len(regrets)
        ),
        none_below(f"{name}, kept models over 2 points below labels only", gains, 2),
    ]


def _average(points: Mapping[Place, float]) -> float:
    return statistics.mean(points.values()) if points else 0.0


def _over_seeds(points: Mapping[Place, float]) -> dict[str, float]:
    """Data set -> mean over its seeds."""
    return {
        name: statistics.mean(value for (dataset, _), value in points.items() if dataset == name)
        for name in dict.fromkeys(dataset for dataset, _ in points)
    }


def none_below(title: str, gains: Mapping[str, float], points: float, unit: str = "cells") -> str:
    """Names those with a loss of more than so many points."""
    below = [f"{name} {gain:+.1f}" for name, gain in gains.items() if gain < -points]
    return goal_line(f"{title}: {', '.join(below) or 'none'}", "none", not below, len(gains), unit)


def best(numbers: Mapping[str, Numbers], names: Iterable[str], ours: Numbers) -> str:
    """Of the methods that have over half of our cells, the one that ours is least ahead of there; none is ''."""
    gains = {name: gains_of(ours, numbers.get(name, {})) for name in names}
    rivals = [name for name in gains if 2 * len(gains[name]) > len(ours)]
    return min(rivals, key=lambda name: statistics.mean(gains[name].values()), default="")


def gains_of(ours: Numbers, theirs: Numbers) -> dict[Place, float]:
    """Accuracy of ours minus theirs in points, where both are."""
    return {
        place: 100 * (cell["accuracy"] - theirs[place]["accuracy"]) for place, cell in ours.items() if place in theirs
    }


def goal_line(text: str, goal: str, reached: bool, count: int, unit: str = "cells") -> str:
    state = ("reached" if reached else "MISSED") if count else "not measured"
    shown = text if count else text.partition(":")[0].rstrip(", ")
    return f"  {state:12}  {shown} (goal {goal}; {count} {unit})"


def draw(kept: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """One row of dots a data set, one dot a seed, a line at the mean; of the grid alone where it has any."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    numbers = {name: cells for name, cells in by_method(kept).items() if name in METHODS}
    kept_of = [name for name in LABELS_PER_CLASS if any(_of(cells, name) for cells in numbers.values())]
    datasets = [name for name in kept_of if name in GRID] or kept_of
    figure, axes = pyplot.subplots(
        len(datasets), sharex=True, squeeze=False, figsize=(1.5 + len(numbers), 1 + 1.9 * len(datasets))
    )
    for axis, dataset in zip(axes[:, 0], datasets, strict=True):
        for position, (name, cells) in enumerate(numbers.items()):
            values = [100 * value for value in _of(cells, dataset)]
            color = "tab:orange" if name in HFSSL else "tab:blue"
            axis.plot([position] * len(values), values, "o", color=color, alpha=0.6)
            if values:
                axis.hlines(statistics.mean(values), position - 0.3, position + 0.3, color=color)
        axis.set_title(f"{dataset}, {LABELS_PER_CLASS[dataset]} labels a class", loc="left", fontsize="medium")
        axis.set_ylabel("accuracy, %")
        axis.grid(axis="y", alpha=0.3)
    axes[-1, 0].set_xticks(range(len(numbers)), numbers, rotation=30, ha="right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path
