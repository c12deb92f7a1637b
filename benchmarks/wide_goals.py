"""The goals of the wide grid: gains, seconds, calibration; fresh draws; and whether the verdict is to be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cells import HFSSL
from compare_tables import CHOICES, goal_line, none_below
from peers import PEERS
from pools import OWN
from wide_statistics import Numbers, paired

from hfssl.config.stages import LABELS_ONLY, STAGES

__all__ = ["Trust", "goals", "interval", "trust"]

GRID_SEEDS = (0, 1)  # of the report; all other seeds are fresh draws of the labels
STANDARD, QUICK, SETFIT = "hfssl_standard", "hfssl_quick", "setfit"
SIGNIFICANT, NOTABLE_LOSS, ONE_IN = 0.05, 2.0, 40
NORMAL = {0.8: 1.2816, 0.95: 1.96}  # half widths of central intervals in standard deviations
COVERED = {0.8: (0.7, 0.9), 0.95: None}


def goals(numbers: Mapping[str, Numbers], kept: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each goal: reached, MISSED or not measured.

    Args:
        numbers: as `wide_tables.by_label` returns them.
        kept: all cells, those with harmful pools among them.
    """
    report = {label: _of_seeds(cells, fresh=False) for label, cells in numbers.items()}
    plain = [cell for cell in kept if cell["method"] in HFSSL and not cell["variant"]]
    own = [cell for cell in plain if cell["pool"] == OWN]
    harmful = [cell for cell in plain if cell["pool"] != OWN]
    lines = [*_gains(report), *_seconds(report), *_calibration(report), _fresh(numbers)]
    lines += [_losses(own), _harm(harmful)]
    return [*lines, *_verdict(own)]


def _of_seeds(cells: Numbers, *, fresh: bool) -> Numbers:
    return {place: cell for place, cell in cells.items() if (place[2] not in GRID_SEEDS) == fresh}


# --- gains, seconds, calibration -------------------------------------------------------------------------------------


def _gains(numbers: Mapping[str, Numbers]) -> list[str]:
    lines = []
    standard = numbers.get(STANDARD, {})
    for preset, goal in ((STANDARD, 3.0), (QUICK, 2.0)):
        ours = numbers.get(preset, {})
        peer = _best_peer(numbers, ours)
        gain = paired(ours, numbers.get(peer, {}))
        count = len(gain.by_set)
        error = "" if math.isnan(gain.error) else f" ± {gain.error:.1f}"
        text = f"{_short(preset)} minus best peer, {peer}: {gain.mean:+.1f}{error} points"
        lines.append(goal_line(text, f"{goal}", count > 0 and gain.mean >= goal, count, "data sets"))
        if preset == STANDARD:
            level = sum(one >= 0 for one in gain.by_set.values())
            text = f"data sets where standard is level with it or above: {level}"
            lines.append(goal_line(text, "9 of 13", 13 * level >= 9 * count, count, "data sets"))
    losses = paired(standard, numbers.get(f"{STANDARD}: {LABELS_ONLY}", {})).by_set
    title = "data sets where standard is over 1 point below its labels only"
    return [*lines, none_below(title, losses, 1, "data sets")]


def _best_peer(numbers: Mapping[str, Numbers], ours: Numbers) -> str:
    """Of the peers with over half of our cells, the one that ours is least ahead of there, on average over sets."""
    gains = {name: paired(ours, numbers.get(name, {})) for name in PEERS}
    rivals = [name for name in gains if 2 * len(gains[name].by_place) > len(ours)]
    return min(rivals, key=lambda name: gains[name].mean, default="")


def _seconds(numbers: Mapping[str, Numbers]) -> list[str]:
    lines = []
    for preset, goal in ((STANDARD, 1.0), (QUICK, 0.8)):
        both = [numbers.get(name, {}) for name in (preset, preset.replace("hfssl", "before"))]
        common = [place for place in both[0] if all(cells.get(place, {}).get("seconds") for cells in both)]
        ours, theirs = (sum(cells[place]["seconds"] for place in common) for cells in both)
        ratio = ours / theirs if common else 0.0
        text = f"{_short(preset)} / seconds of the earlier commit: {ratio:.2f}"
        lines.append(goal_line(text, f"at most {goal}", ratio <= goal, len(common)))
    return lines


def _calibration(numbers: Mapping[str, Numbers]) -> list[str]:
    lines = []
    for preset in (STANDARD, QUICK):
        cells = numbers.get(preset, {}).values()
        errors = [cell["debiased_ece"] for cell in cells if cell.get("debiased_ece") is not None]
        mean = statistics.mean(errors) if errors else 0.0
        text = f"{_short(preset)}, mean debiased calibration error: {mean:.3f}"
        lines.append(goal_line(text, "at most 0.05", mean <= 0.05, len(errors)))
    return lines


def _fresh(numbers: Mapping[str, Numbers]) -> str:
    """Whether the gain over SetFit carries over to draws of the labels that no choice has seen."""
    ours, theirs = (numbers.get(name, {}) for name in (STANDARD, SETFIT))
    report, fresh = (paired(_of_seeds(ours, fresh=flag), _of_seeds(theirs, fresh=flag)) for flag in (False, True))
    both = min(len(report.by_place), len(fresh.by_place))
    text = f"standard minus setfit on fresh draws: {fresh.mean:+.1f}, on those of the grid {report.mean:+.1f}"
    near = both > 0 and abs(fresh.mean - report.mean) <= 0.7
    return goal_line(text, "within 0.7 points", near, both)


def _short(preset: str) -> str:
    return preset.removeprefix("hfssl_")


# --- the verdict -----------------------------------------------------------------------------------------------------


def _losses(cells: Sequence[Mapping[str, Any]]) -> str:
    """Runs whose shipped model is clearly worse than labels only: by over 2 points, and by McNemar's test."""
    shipped = {_name(cell): cell["shipped"] for cell in cells if cell.get("shipped")}
    worse = [
        name for name, one in shipped.items() if 100 * one["gain"] < -NOTABLE_LOSS and one["p_worse"] < SIGNIFICANT
    ]
    text = f"runs that ship a model over 2 points below labels only (p < {SIGNIFICANT}): {', '.join(worse) or 'none'}"
    return goal_line(text, f"at most 1 of {ONE_IN}", ONE_IN * len(worse) <= len(shipped), len(shipped), "runs")


def _harm(cells: Sequence[Mapping[str, Any]]) -> str:
    gains = {_name(cell): 100 * cell["shipped"]["gain"] for cell in cells if cell.get("shipped")}
    return none_below("harmful pools that cost over 2 points", gains, NOTABLE_LOSS, "runs")


def _name(cell: Mapping[str, Any]) -> str:
    pool = "" if cell["pool"] == OWN else f", {cell['pool']}"
    return f"{cell['dataset']}/{cell['budget']}/{cell['seed']} {_short(cell['method'])}{pool}"


@dataclass(frozen=True)
class Trust:
    """What a verdict was worth in one run.

    Attributes:
        regret: points of accuracy on the test part that the selected stage is below the best of labels only and the
            stages with the pool.
        gain: of the judged stage over labels only on the test part, in `[-1, 1]`.
        intervals: level -> bounds of the expected gain.
    """

    regret: float
    gain: float
    intervals: dict[float, tuple[float, float]]


def trust(cell: Mapping[str, Any]) -> Trust | None:
    """The verdict of a run against its test part; `None` where there was nothing to judge, or not one judged stage."""
    accuracy = {name: stage["accuracy"] for name, stage in cell.get("stages", {}).items() if name in CHOICES}
    selected, verdict = cell.get("selected_stage"), cell.get("verdict") or {}
    with_pool = [name for name in accuracy if name != LABELS_ONLY and STAGES[name].reads_pool]
    judged = selected if selected != LABELS_ONLY else with_pool[0] if len(with_pool) == 1 else None
    judged = verdict.get("judged_stage") or judged
    if LABELS_ONLY not in accuracy or judged not in accuracy or selected not in accuracy:
        return None
    levels = {level: interval(verdict, level) for level in NORMAL}
    intervals = {level: bounds for level, bounds in levels.items() if bounds is not None}
    regret = 100 * (max(accuracy.values()) - accuracy[selected])
    return Trust(regret, accuracy[judged] - accuracy[LABELS_ONLY], intervals)


def interval(verdict: Mapping[str, Any], level: float) -> tuple[float, float] | None:
    """Bounds of the expected gain at a level: as the verdict has them, or by a normal one around its mean.

    The verdict has `expected_interval` at 95%, and may have others as `expected_interval_80`.
    """
    whole, own = verdict.get("expected_interval"), verdict.get(f"expected_interval_{100 * level:.0f}")
    if own is not None:
        return own[0], own[1]
    if whole is None:
        return None
    factor, mean = NORMAL[level] / NORMAL[0.95], verdict["expected_gain"]
    return mean + factor * (whole[0] - mean), mean + factor * (whole[1] - mean)


def _verdict(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    found = [one for cell in cells if (one := trust(cell)) is not None]
    regret = statistics.mean(one.regret for one in found) if found else 0.0
    text = f"mean regret of the verdict: {regret:.2f} points"
    lines = [goal_line(text, "at most 0.3", regret <= 0.3, len(found), "runs")]
    for level, bounds in COVERED.items():
        inside = [
            one.intervals[level][0] <= one.gain <= one.intervals[level][1] for one in found if level in one.intervals
        ]
        share = statistics.mean(inside) if inside else 0.0
        text = f"{100 * level:.0f}% intervals that hold the gain on the test part: {100 * share:.0f}%"
        if bounds is None:
            lines += [f"  {'':12}  {text} (no goal; {len(inside)} runs)"] if inside else []
            continue
        told = f"{100 * bounds[0]:.0f} to {100 * bounds[1]:.0f}%"
        lines.append(goal_line(text, told, bounds[0] <= share <= bounds[1], len(inside), "runs"))
    return lines
