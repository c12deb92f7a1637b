"""Functions of kept logits, measured in minutes: stacking weights, class prior, temperature, verdict.

    python benchmarks/replay.py                                # rules on development rows, each against equal weights
    python benchmarks/replay.py --against "kept weights"
    python benchmarks/replay.py --members                      # each member of the ensemble alone, by its kind
    python benchmarks/replay.py --verdict "stacked 4" "kind all"   # out-of-fold gains against gains on the test part

Reads what `compare.py --grid wide --rows development` has left in `runs/wide-logits/` (`kept_logits.py`): for each
cell the logits of the members on the labeled rows (out of fold), the pool and the test part. Nothing is trained. A
rule is a function of a cell that returns probabilities of a part; a rule that lacks what it needs in a cell is left
out there.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from grid import BUDGETS, ROOT, WIDE
from kept_logits import Kept, read_kept
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from wide_statistics import METRICS, Numbers, Place, mean_and_error, paired, set_means, value
from wide_tables import aligned, gain_told, with_error

from hfssl.functional.class_priors import align_distribution, class_prior, estimate_prior, predicted_prior

__all__ = ["RULES", "evaluate", "kind_of", "leave_one_set_out", "read_cells", "stacking_weights"]

LOGITS = ROOT / "runs" / "wide-logits" / "development"
EQUAL = "equal weights"
SHRINKAGE = (1.0, 4.0, 16.0, 64.0)  # pseudo-counts of rows that speak for equal weights
Rule = Callable[[Kept, str], np.ndarray]  # of a cell and a part


class Lacking(LookupError):
    """A cell does not have what a rule needs."""


# --- ensembles -------------------------------------------------------------------------------------------------------


def kind_of(member: str) -> str:
    """The kind of a member: its name without the number, "contrastive" of "contrastive-0"."""
    head, _, number = member.rpartition("-")
    return head if number.isdigit() else member


def _mixed(
    members: Mapping[str, Mapping[str, np.ndarray]], part: str, weights: np.ndarray | None = None
) -> np.ndarray:
    """Weighted mean of the members' probabilities; equal weights without any."""
    if not members:
        raise Lacking(f"no member has predicted {part}")
    probs = np.stack([softmax(parts[part], axis=1) for parts in members.values()])
    return np.average(probs, axis=0, weights=weights)


def stacking_weights(logits: Sequence[np.ndarray], labels: np.ndarray, shrinkage: float) -> np.ndarray:
    """Mixture weights `[M]` that maximise sum log(sum_m w_m p_m(y|x)) + shrinkage / M * sum_m log(w_m).

    The second term is that of a Dirichlet prior whose mode is equal weights. By expectation maximisation, which has
    one maximum, as the sum is concave in w.

    Args:
        logits: out-of-fold ones of M members, each `[L, K]`.
        labels: `[L]`.
        shrinkage: pseudo-count of rows; 0 for none.
    """
    rows = np.arange(len(labels))
    likelihood = np.exp(np.stack([log_softmax(table, axis=1)[rows, labels] for table in logits], axis=1))
    members = likelihood.shape[1]
    weights = np.full(members, 1 / members)
    for _ in range(2000):
        joint = likelihood * weights + 1e-300
        counts = (joint / joint.sum(axis=1, keepdims=True)).sum(axis=0) + shrinkage / members
        fresh = counts / counts.sum()
        change, weights = np.abs(fresh - weights).max(), fresh
        if change < 1e-8:
            break
    return weights


def _voters(kept: Kept, part: str) -> dict[str, dict[str, np.ndarray]]:
    """The members that have predicted a part, and the labeled rows out of fold; of no such ones, all of the part."""
    present = {name: parts for name, parts in kept.members.items() if part in parts}
    return {name: parts for name, parts in present.items() if "labeled" in parts} or present


def equal(kept: Kept, part: str) -> np.ndarray:
    """All members alike."""
    return _mixed(_voters(kept, part), part)


def stacked(
    kept: Kept, part: str, *, shrinkage: float, without: str | None = None, calibrated: bool = False
) -> np.ndarray:
    """Members weighted by out-of-fold likelihood.

    Args:
        shrinkage: as in `stacking_weights`.
        without: kind of member that is left out.
        calibrated: whether each member gets a temperature of its own before the weights are fitted.
    """
    every = _voters(kept, part)
    members = {name: parts for name, parts in every.items() if kind_of(name) != without}
    if without is not None and len(members) == len(every):
        raise Lacking(f"no member of the kind {without}")
    if not members or not all("labeled" in parts for parts in members.values()):
        raise Lacking("no out-of-fold rows")
    logits, labels = [parts["labeled"] for parts in members.values()], kept.labels["labeled"]
    if calibrated:
        from hfssl.evaluation.temperature_scaling import fit_temperature

        logits = [table / fit_temperature(table, labels) for table in logits]
    return _mixed(members, part, stacking_weights(logits, labels, shrinkage))


def of_kind(kept: Kept, part: str, *, kind: str) -> np.ndarray:
    """The members of one kind alone, alike."""
    present = {name: parts for name, parts in kept.members.items() if part in parts and kind_of(name) == kind}
    return _mixed(present, part)


def kept_weights(kept: Kept, part: str) -> np.ndarray:
    """The members by the weights that the run had."""
    members = {name: parts for name, parts in kept.members.items() if part in parts and name in kept.weights}
    if set(members) != set(kept.weights):
        raise Lacking("weights of other members")
    return _mixed(members, part, np.array([kept.weights[name] for name in members]))


def of_stage(kept: Kept, part: str, *, stage: str) -> np.ndarray:
    """The model of a stage, as it predicts before calibration."""
    if part not in kept.stages.get(stage, {}):
        raise Lacking(f"no {stage} on {part}")
    return softmax(kept.stages[stage][part], axis=1)


def averaged(kept: Kept, part: str, *, stage: str) -> np.ndarray:
    """Mean of the ensemble and of the model of a stage."""
    return (stacked(kept, part, shrinkage=4.0) + of_stage(kept, part, stage=stage)) / 2


# --- class prior, temperature ----------------------------------------------------------------------------------------


def aligned_to(kept: Kept, part: str, *, estimate: str, rule: Rule) -> np.ndarray:
    """The probabilities of a rule, moved to a class prior of the pool.

    Args:
        estimate: `predicted` (by predicted classes), `em` (by expectation maximisation), `labels` (that of the labels)
            or `true` (by the hidden labels: the most that an estimate could give).
        rule: whose probabilities are moved, for the part and the pool together.
    """
    probs, (pool_part, pool) = rule(kept, part), _of_pool(kept, rule)
    num_classes, labels = probs.shape[1], class_prior(kept.labels["labeled"], probs.shape[1])
    if estimate == "predicted":
        target = predicted_prior(pool.argmax(axis=1), labels)
    elif estimate == "em":
        target = estimate_prior(pool, pool.mean(axis=0))
    elif estimate == "labels":
        target = labels
    else:
        hidden = kept.labels[pool_part]
        if not (hidden >= 0).any():
            raise Lacking("no hidden labels")
        target = class_prior(hidden, num_classes)
    both = align_distribution(np.concatenate([pool, probs]), target)
    return both[len(pool) :]


def _of_pool(kept: Kept, rule: Rule) -> tuple[str, np.ndarray]:
    """A part of the pool, and the probabilities of a rule for it: where members lack the pool, the rows set aside."""
    for part in ("unlabeled", "proxy"):
        try:
            return part, rule(kept, part)
        except Lacking:
            continue
    raise Lacking("no rows of the pool")


def tempered(kept: Kept, part: str, *, rule: Rule, prior_scale: float) -> np.ndarray:
    """The probabilities of a rule at the temperature that suits its out-of-fold predictions best.

    Args:
        rule: whose probabilities are tempered.
        prior_scale: standard deviation of log T under the prior.
    """
    labels = kept.labels["labeled"]
    scores = np.log(np.clip(rule(kept, "labeled"), 1e-12, None))

    def cost(log_temperature: np.ndarray) -> float:
        logs = log_softmax(scores / np.exp(log_temperature[0]), axis=1)
        return float(-logs[np.arange(len(labels)), labels].sum() + log_temperature[0] ** 2 / (2 * prior_scale**2))

    found = minimize(cost, [0.0], method="Nelder-Mead").x[0]
    return softmax(np.log(np.clip(rule(kept, part), 1e-12, None)) / np.exp(found), axis=1)


STACKED = partial(stacked, shrinkage=4.0)
RULES: dict[str, Rule] = {
    EQUAL: equal,
    "kept weights": kept_weights,
    **{f"stacked {shrinkage:g}": partial(stacked, shrinkage=shrinkage) for shrinkage in SHRINKAGE},
    "stacked 4, calibrated": partial(stacked, shrinkage=4.0, calibrated=True),
    **{f"aligned, {name}": partial(aligned_to, estimate=name, rule=STACKED) for name in ("predicted", "em", "labels")},
    "aligned, true": partial(aligned_to, estimate="true", rule=STACKED),
    **{f"tempered {scale:g}": partial(tempered, rule=STACKED, prior_scale=scale) for scale in (0.25, 0.5, 1.0)},
}


def rules_of(cells: Mapping[Any, Kept], *, members: bool) -> dict[str, Rule]:
    """The rules above, and those of the kinds of members and of the stages that any cell has."""
    kinds = dict.fromkeys(kind_of(name) for kept in cells.values() for name in kept.members)
    stages = dict.fromkeys(stage for kept in cells.values() for stage in kept.stages)
    rules = dict(RULES)
    rules |= {f"without {kind}": partial(stacked, shrinkage=4.0, without=kind) for kind in kinds}
    rules |= {f"stage {stage}": partial(of_stage, stage=stage) for stage in stages}
    rules |= {f"stacked and {stage}": partial(averaged, stage=stage) for stage in stages}
    alone = {f"kind {kind}": partial(of_kind, kind=kind) for kind in kinds}
    return {**alone, EQUAL: equal} if members else {**rules, **alone}


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

    right: dict[Place, dict[str, list[np.ndarray]]] = {}
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
    cells = read_cells(options.logits, options.method)
    if not cells:
        raise SystemExit(f"Expected kept logits of {options.method} in {options.logits}, found none: run compare.py.")
    rules = rules_of(cells, members=options.members)
    for name in [*(options.verdict or ()), options.against]:
        if name not in rules:
            raise SystemExit(f"Expected one of {', '.join(rules)} as a rule, got {name!r}.")
    if options.verdict:
        print(verdict_told(judged(cells, *(rules[name] for name in options.verdict))))
        return
    numbers = evaluate(cells, rules)
    if options.against not in numbers:
        raise SystemExit(f"Expected cells that have what {options.against!r} needs, found none.")
    print(table(numbers, options.against))


if __name__ == "__main__":
    main()
