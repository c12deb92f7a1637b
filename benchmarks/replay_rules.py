"""The rules of `replay.py`: functions of the kept logits of a cell that return probabilities `[N, K]` of a part.

A rule raises `Lacking` where a cell does not have what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from kept_logits import Kept
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from hfssl.functional.class_priors import align_distribution, class_prior, estimate_prior, predicted_prior

__all__ = ["EQUAL", "RULES", "Lacking", "Rule", "kind_of", "rules_of", "stacking_weights"]

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
