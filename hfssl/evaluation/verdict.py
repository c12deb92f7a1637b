"""The verdict: whether the unlabeled data helped, with an interval, from held-out labels where there are any.

One of a handful of held-out labels counts for more than most gains (1 of 18 is 5.6% of the accuracy). The verdict
therefore combines the held-out rows with the gains of earlier runs by Bayes' rule. The prior of a gain is a mixture of
the gains of runs that went well (`gain_prior` in `hfssl.config.stages`) and, with a small weight, of runs that went
wrong; the held-out rows update the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from hfssl.config.stages import LABELS_ONLY, stage_row
from hfssl.metrics.significance import paired_gain
from hfssl.tasks.base import Task
from hfssl.tasks.registry import get_task

__all__ = ["Verdict", "expected_gain", "judge", "mixture_prior"]

CONFIDENCE = 0.95

# Weight, mean and standard deviation of the gains in accuracy of runs in which something went wrong: an assumption, as
# no run on the development sets went so wrong (benchmarks/NOTES.md, 2026-11-27).
WENT_WRONG = (0.05, -0.15, 0.2)


@dataclass(frozen=True)
class Verdict:
    """Holds the selected stage, and the reasons for it.

    Attributes:
        selected_stage (`str`): Name of the stage of the final model.
        use_unlabeled (`bool`): Whether that stage used the unlabeled rows.
        gain (`float`, *optional*): Accuracy of the best stage that used them minus that of labels only, on the
            held-out labels, in `[-1, 1]`; `None` without held-out labels.
        interval (`list[float]`, *optional*): 95% interval of `gain`; see `paired_gain`.
        expected_gain (`float`, *optional*): Expected gain on new rows, given the held-out ones and earlier runs.
        expected_interval (`list[float]`, *optional*): 95% interval of the expected gain.
        reasons (`list[str]`): Sentences.
        sentence (`str`): The verdict in one sentence.
    """

    selected_stage: str
    use_unlabeled: bool
    gain: float | None
    interval: list[float] | None
    expected_gain: float | None
    expected_interval: list[float] | None
    reasons: list[str]
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Returns JSON values without `selected_stage`, which is a separate key of `results.json`."""
        return {name: value for name, value in asdict(self).items() if name != "selected_stage"}


def mixture_prior(stage: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Returns (weight, mean, standard deviation) of a stage's gains in runs that go well and in runs that go wrong.

    Args:
        stage (`str`): Name of a stage.

    Example:
        >>> mixture_prior("self_training")[0]
        (0.95, 0.03, 0.03)
    """
    return (1 - WENT_WRONG[0], *stage_row(stage).gain_prior), WENT_WRONG


def expected_gain(
    labels_only: np.ndarray,
    other: np.ndarray,
    gain_prior: Sequence[tuple[float, float, float]],
    *,
    spread: float = 0.0,
    shift: float = 0.0,
) -> tuple[float, float, float]:
    """Returns the expected gain in accuracy on new rows: posterior mean and 95% interval.

    The observed mean difference is modelled as normal around the true gain, with variance (sum d^2 + 1) / (N + 1) / N.
    The added 1 is a row on which the models differ: a few rows do not prove two models equal. The prior is a mixture
    of normals, and so is the posterior.

    Args:
        labels_only (`np.ndarray`): Whether labels only is right, `[N]` bool; N may be 0.
        other (`np.ndarray`): Whether the stage is right, `[N]` bool.
        gain_prior (`Sequence[tuple[float, float, float]]`): (weight, mean, standard deviation) of each component.
        spread (`float`, defaults to 0): Standard deviation of the difference between the true gain of the models that
            predicted these rows and that of the final models; its square is added to the variance.
        shift (`float`, defaults to 0): Mean of that difference, which is taken off the observed gain.

    Returns:
        Mean, lower and upper bound, almost surely in `[-1, 1]`.
    """
    shares, means, spreads = (np.array(values) for values in zip(*gain_prior, strict=True))
    difference = np.asarray(other, dtype=float) - np.asarray(labels_only, dtype=float)
    count = len(difference)
    if count:
        noise = (np.square(difference).sum() + 1) / (count + 1) / count + spread**2
        observed = difference.mean() - shift
        shares = shares * norm.pdf(observed, means, np.sqrt(spreads**2 + noise))
        shares /= shares.sum()
        trust = spreads**2 / (spreads**2 + noise)
        means, spreads = means + trust * (observed - means), np.sqrt(trust * noise)

    def quantile(level: float) -> float:
        return float(brentq(lambda x: (shares * norm.cdf(x, means, spreads)).sum() - level, -3.0, 3.0))

    tail = (1 - CONFIDENCE) / 2
    return float((shares * means).sum()), quantile(tail), quantile(1 - tail)


def judge(
    probs: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    alarms: Sequence[str] = (),
    task: Task | None = None,
    spread: float = 0.0,
    shift: float = 0.0,
) -> Verdict:
    """Compares every stage with labels only and selects the stage with the best expected accuracy on new rows.

    The expectation combines held-out labels, where there are any, with earlier runs; see `expected_gain`. The
    log-likelihood on the held-out rows decides between equal expectations. An alarm (for example, a class that the
    pseudo-labels lost) rejects the unlabeled data whatever the comparison shows, since a few held-out rows cannot
    outweigh it.

    Args:
        probs (`Mapping[str, np.ndarray]`): Stage name -> `[N, K]` probabilities on the held-out rows; must hold
            `"labels_only"`.
        labels (`np.ndarray`): Held-out labels, `[N]`; empty when there are none.
        alarms (`Sequence[str]`, defaults to `()`): Sentences that speak against the unlabeled data.
        task (`Task`, *optional*): Kind of prediction, with the rule when one is right. Default: one label per text.
        spread (`float`, defaults to 0): As in `expected_gain`.
        shift (`float`, defaults to 0): As in `expected_gain`.
    """
    others = [name for name in probs if name != LABELS_ONLY]
    if not others:
        reasons = ["No stage used unlabeled rows."]
        sentence = "No unlabeled data was used: the model rests on the labels."
        return Verdict(LABELS_ONLY, False, None, None, None, None, reasons, sentence)
    task = get_task() if task is None else task
    nothing = np.zeros(0, dtype=bool)
    nll, right = task.nll, {k: task.right(table, labels) if len(labels) else nothing for k, table in probs.items()}
    before = right[LABELS_ONLY]
    differ = {"spread": spread, "shift": shift}
    expected = {name: expected_gain(before, right[name], mixture_prior(name), **differ) for name in others}
    merits = {
        name: (round(expected[name][0], 6), -nll(probs[name], labels) if len(labels) else 0.0) for name in others
    }
    best = max(reversed(others), key=merits.__getitem__)
    mean, low, high = expected[best]
    outlook = f"expected on new rows: {_points(mean)}, 95% interval {_points(low)} to {_points(high)}"
    rest = {"expected_gain": mean, "expected_interval": [low, high]}
    if len(labels) == 0:
        return _judge_without_labels(best, alarms, outlook, rest)
    standing = (0.0, -nll(probs[LABELS_ONLY], labels))
    use = merits[best] > standing and not alarms
    gain, lowest, highest = paired_gain(right[LABELS_ONLY], right[best], confidence=CONFIDENCE)
    counts = f"{right[best].sum()} of {len(labels)} held-out rows right with, {right[LABELS_ONLY].sum()} without it"
    reasons = [f"{stage_row(best).model}: {counts}.", *alarms]
    if merits[best][0] == 0:
        costs = "{:.3f} nats with, {:.3f} without".format(*(nll(probs[name], labels) for name in (best, LABELS_ONLY)))
        reasons.insert(1, f"A tie, decided by the log-likelihood: {costs}.")
    seen = f"{_points(gain)} points on {len(labels)} held-out labels, 95% interval {_points(lowest)} to "
    spread = f"{seen}{_points(highest)}; {outlook}"
    if use and gain >= 0:
        certainty = "helped" if lowest > 0 else "seems to have helped" if gain > 0 else "made no difference so far"
        sentence = f"The unlabeled data {certainty} ({spread}): the {stage_row(best).model} model is selected."
    elif use:
        sentence = (
            f"The held-out labels speak against the unlabeled data, earlier runs for it ({spread}): the "
            f"{stage_row(best).model} model is selected, but check it."
        )
    elif alarms and merits[best] > standing:
        sentence = f"An alarm was raised against the unlabeled data ({spread}): the labels-only model is selected."
    else:
        sentence = f"The unlabeled data did not help ({spread}): the labels-only model is selected."
    if lowest <= 0 <= highest:
        reasons.append("The interval includes zero: so few held-out labels cannot settle it.")
    selected = best if use else LABELS_ONLY
    return Verdict(selected, use, gain, [lowest, highest], **rest, reasons=reasons, sentence=sentence)


def _judge_without_labels(candidate: str, alarms: Sequence[str], outlook: str, rest: dict[str, Any]) -> Verdict:
    use = rest["expected_gain"] > 0 and not alarms
    reasons = [
        "No folds could be made of so few labels, and none were held out: the verdict rests on no labels.",
        f"By earlier runs alone, the gain {outlook}.",
        *alarms,
    ]
    why = "no alarm was raised" if use else "an alarm was raised" if alarms else "earlier runs promise no gain"
    outcome = f"the {stage_row(candidate).model} model is selected" if use else "the labels-only model is selected"
    sentence = f"Unverified: the labels are too few for folds, {why}, and {outcome}."
    return Verdict(candidate if use else LABELS_ONLY, use, None, None, **rest, reasons=reasons, sentence=sentence)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
