"""Functions of kept logits, measured in minutes: stacking weights, class prior, temperature, verdict.

    python benchmarks/replay.py                                # rules on development rows, each against equal weights
    python benchmarks/replay.py --against "kept weights"
    python benchmarks/replay.py --members                      # each member of the ensemble alone, by its kind
    python benchmarks/replay.py --verdict "stacked 4" "kind all"   # out-of-fold gains against gains on the test part

Reads what `compare.py --grid wide --rows development` has left in `runs/wide-logits/` (`kept_logits.py`): for each
cell the logits of the members on the labeled rows (out of fold), the pool and the test part. Nothing is trained. The
rules stand in `replay_rules.py`; a rule that lacks what it needs in a cell is left out there.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grid import BUDGETS, ROOT, WIDE
from kept_logits import Kept, read_kept
from replay_rules import EQUAL, Lacking, Rule, rules_of
from wide_statistics import METRICS, Numbers, Place, mean_and_error, paired, set_means, value
from wide_tables import aligned, gain_told, with_error

__all__ = ["evaluate", "judged", "leave_one_set_out", "read_cells", "replayed"]

LOGITS = ROOT / "runs" / "wide-logits" / "development"


# --- the cells and the tables ----------------------------------------------------------------------------------------


def read_cells(folder: Path, method: str) -> dict[Place, Kept]:
    """Place -> logits of the cells of a method, in the order of the grid."""
    found: dict[Place, Kept] = {}
    for path in sorted(folder.glob(f"*-{method}-*.npz")):
        dataset, labels, _, seed = path.stem.split("-")
        budget = next(name for name, sizes in BUDGETS.items() if int(labels) in sizes)
        found[dataset, budget, int(seed)] = read_kept(path)
    return dict(sorted(found.items(), key=lambda item: (WIDE.index(item[0][0]), item[0][1:])))


def evaluate(cells: Mapping[Place, Kept], rules: Mapping[str, Rule]) -> dict[str, Numbers]:
    """Rule -> place -> metrics on the test part, where the rule has what it needs."""
    from hfssl.metrics.calibration import debiased_ece
    from hfssl.metrics.classification import evaluate_probs

    numbers: dict[str, Numbers] = {}
    for name, rule in rules.items():
        for place, kept in cells.items():
            try:
                probs = rule(kept, "test")
            except Lacking:
                continue
            labels = kept.labels["test"]
            metrics = {**evaluate_probs(probs, labels), "debiased_ece": debiased_ece(probs, labels)}
            numbers.setdefault(name, {})[place] = metrics
    return numbers


def table(numbers: Mapping[str, Numbers], against: str) -> str:
    """A row for each rule: means over the sets, and the gain over another rule on common cells."""
    lines = [["rule", *METRICS.values(), "NLL", "debiased ECE", f"gain over {against}", "worst set", "cells"]]
    for name, cells in numbers.items():
        lines.append([name])
        for metric in METRICS:
            means = set_means({place: value(cell, metric) for place, cell in cells.items()})
            lines[-1].append(with_error(*mean_and_error(list(means.values()))))
        lines[-1].append(f"{statistics.mean(cell['nll'] for cell in cells.values()):.3f}")
        lines[-1].append(f"{100 * statistics.mean(cell['debiased_ece'] for cell in cells.values()):.1f}")
        gain = paired(cells, numbers[against], "both")
        worst = min(gain.by_set, key=gain.by_set.__getitem__, default=None)
        lines[-1].append(gain_told(gain) if gain.by_set and name != against else "")
        lines[-1].append("" if worst is None or name == against else f"{gain.by_set[worst]:+.1f} {worst}")
        lines[-1].append(str(len(cells)))
    head = "In points; gains in the mean of accuracy and macro-F1, * where they count (over twice the standard error)."
    return f"{head}\n\n{aligned(lines)}"


# --- the verdict -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """A verdict by out-of-fold rows, and what came of it on the test part; gains in `[-1, 1]`."""

    expected: float
    bounds: tuple[float, float]  # 95%
    gain: float

    @property
    def regret(self) -> float:
        """What the choice by the expected gain costs against the better of both."""
        return max(self.gain, 0.0) - (self.gain if self.expected > 0 else 0.0)

    def holds(self, level: float) -> bool:
        """Whether the interval at a level holds the gain; others than 95% by a normal one around the mean."""
        from wide_goals import interval

        verdict = {"expected_gain": self.expected, "expected_interval": self.bounds}
        low, high = interval(verdict, level) or self.bounds
        return low <= self.gain <= high


def leave_one_set_out(gains: Mapping[Place, float]) -> dict[Place, tuple[float, float]]:
    """Place -> mean and standard deviation of the gains in cells of all other data sets: the prior of its verdict."""
    found = {}
    for place in gains:
        rest = [gain for other, gain in gains.items() if other[0] != place[0]]
        if len(rest) > 1:
            found[place] = statistics.mean(rest), max(statistics.stdev(rest), 1e-3)
    return found


def judged(cells: Mapping[Place, Kept], ours: Rule, base: Rule) -> dict[Place, Judged]:
    """The verdict on two rules in each cell: out-of-fold rows, with the gains of the other data sets as a prior."""
    from hfssl.evaluation.verdict import WENT_WRONG, expected_gain

    right: dict[Place, dict[str, list]] = {}
    for place, kept in cells.items():
        try:
            found = {part: [rule(kept, part).argmax(axis=1) for rule in (base, ours)] for part in ("labeled", "test")}
        except Lacking:
            continue
        right[place] = {part: [one == kept.labels[part] for one in both] for part, both in found.items()}
    gains = {place: float(both["test"][1].mean() - both["test"][0].mean()) for place, both in right.items()}
    verdicts = {}
    for place, (mean, spread) in leave_one_set_out(gains).items():
        prior_of_gain = ((1 - WENT_WRONG[0], mean, spread), WENT_WRONG)
        expected, low, high = expected_gain(*right[place]["labeled"], prior_of_gain)
        verdicts[place] = Judged(expected, (low, high), gains[place])
    return verdicts


def verdict_told(verdicts: Mapping[Place, Judged]) -> str:
    """Means over the cells."""
    if not verdicts:
        return "No cell of two data sets has both rules on labeled and test rows."
    every = list(verdicts.values())
    expected, gain, regret = (
        100 * statistics.mean(getattr(one, name) for one in every) for name in ("expected", "gain", "regret")
    )
    right = 100 * statistics.mean((one.expected > 0) == (one.gain > 0) for one in every)
    held = [100 * statistics.mean(one.holds(level) for one in every) for level in (0.8, 0.95)]
    return (
        f"{len(every)} cells: expected gain {expected:+.2f} points, on the test part {gain:+.2f}; "
        f"regret {regret:.2f}; right sign {right:.0f}%; "
        f"intervals that hold the gain: {held[0]:.0f}% at 80%, {held[1]:.0f}% at 95%"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logits", type=Path, default=LOGITS, help="folder of the kept logits")
    parser.add_argument(
        "--method", default="hfssl_standard", help="method, or method+variant; default: hfssl_standard"
    )
    parser.add_argument("--against", default=EQUAL, help=f"rule that all are compared with; default: {EQUAL}")
    parser.add_argument("--members", action="store_true", help="each kind of member alone")
    parser.add_argument("--verdict", nargs=2, metavar=("RULE", "BASE"), help="judge a rule against another one")
    options = parser.parse_args()
    print(replayed(options.logits, options.method, options.against, options.members, options.verdict))


def replayed(
    folder: Path,
    method: str = "hfssl_standard",
    against: str = EQUAL,
    members: bool = False,
    verdict: Sequence[str] | None = None,
) -> str:
    """The table of all rules, or the worth of a verdict; ends the program where there is nothing to show.

    Args:
        folder: of the kept logits.
        method: a method, or method+variant.
        against: rule that all are compared with.
        members: whether only each kind of member alone is shown.
        verdict: a rule and the one that it is judged against, in place of the table.
    """
    cells = read_cells(folder, method)
    if not cells:
        raise SystemExit(f"Expected kept logits of {method} in {folder}, found none: run compare.py --grid wide.")
    rules = rules_of(cells, members=members)
    for name in [*(verdict or ()), against]:
        if name not in rules:
            raise SystemExit(f"Expected one of {', '.join(rules)} as a rule, got {name!r}.")
    if verdict:
        return verdict_told(judged(cells, *(rules[name] for name in verdict)))
    numbers = evaluate(cells, rules)
    if against not in numbers:
        raise SystemExit(f"Expected cells that have what {against!r} needs, found none.")
    return table(numbers, against)


if __name__ == "__main__":
    main()
