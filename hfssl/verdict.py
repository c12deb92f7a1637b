"""Did the unlabeled data help? A verdict with an interval, from held-out labels where there are any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hfssl.metrics.classification import nll, paired_bootstrap
from hfssl.seeding import numpy_generator

__all__ = ["BASELINE", "Verdict", "judge"]

BASELINE = "labels_only"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdict:
    """Which stage is kept, and why.

    Attributes:
        chosen: Name of the stage whose model is kept.
        use_unlabeled: Whether that stage used the unlabeled rows.
        gain: Accuracy of the best stage that used them minus that of labels only, on the held-out labels, in
            `[-1, 1]`; `None` without held-out labels.
        interval: 95% interval of `gain` by a paired bootstrap over the held-out rows.
        reasons: Sentences.
        sentence: The verdict in one sentence.
    """

    chosen: str
    use_unlabeled: bool
    gain: float | None
    interval: list[float] | None
    reasons: list[str]
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form, without `chosen`, which `results.json` holds beside it."""
        return {name: value for name, value in asdict(self).items() if name != "chosen"}


def judge(
    probs: Mapping[str, np.ndarray], labels: np.ndarray, *, alarms: Sequence[str] = (), seed: int = 0
) -> Verdict:
    """Compares every stage with labels only on held-out labels and keeps the better one.

    A stage replaces labels only where it is right more often, or as often and with a lower negative log-likelihood
    (both on the held-out rows). Alarms (a class that the pseudo-labels lost, say) drop the unlabeled data whatever the
    comparison says, since a few held-out rows cannot outweigh them.

    Args:
        probs: Stage name -> `[N, K]` probabilities on the held-out rows; must hold `"labels_only"`.
        labels: `[N]`; empty when there are no held-out labels.
        alarms: Sentences that speak against the unlabeled data.
        seed: Of the bootstrap.
    """
    others = [name for name in probs if name != BASELINE]
    if not others:
        reasons = ["No stage used unlabeled rows."]
        return Verdict(
            BASELINE, False, None, None, reasons, "No unlabeled data was used: the model rests on the labels."
        )
    if len(labels) == 0:
        return _judge_without_labels(others[-1], alarms)
    best = max(reversed(others), key=lambda name: _merit(probs[name], labels))
    right = {name: probs[name].argmax(axis=1) == labels for name in (BASELINE, best)}
    generator = numpy_generator(seed, "verdict")
    gain, low, high = paired_bootstrap(right[BASELINE], right[best], confidence=CONFIDENCE, generator=generator)
    better = _merit(probs[best], labels) > _merit(probs[BASELINE], labels)
    use = better and not alarms
    counts = f"{right[best].sum()} of {len(labels)} held-out rows right with, {right[BASELINE].sum()} without it"
    reasons = [f"{_title(best)}: {counts}.", *alarms]
    if gain == 0:
        costs = "{:.3f} nats with, {:.3f} without".format(*(nll(probs[name], labels) for name in (best, BASELINE)))
        reasons.insert(1, f"A tie in accuracy, decided by the log-likelihood: {costs}.")
    interval = f"95% interval {100 * low:+.1f} to {100 * high:+.1f}"
    spread = f"{100 * gain:+.1f} points on {len(labels)} held-out labels, {interval}"
    if use:
        certainty = "helped" if low > 0 else "seems to have helped" if gain > 0 else "gave better probabilities"
        sentence = f"The unlabeled data {certainty} ({spread}): the {_title(best)} model is kept."
    else:
        sentence = f"The unlabeled data did not help ({spread}): the labels-only model is kept."
    if low <= 0 <= high:
        reasons.append("The interval includes zero: so few held-out labels cannot settle it.")
    return Verdict(best if use else BASELINE, use, gain, [low, high], reasons, sentence)


def _judge_without_labels(candidate: str, alarms: Sequence[str]) -> Verdict:
    use = not alarms
    reasons = ["There were too few labels to hold any back: the verdict rests on no labels.", *alarms]
    if use:
        sentence = (
            f"Unverified: no labels could be held out, no alarm was raised, and the {_title(candidate)} model is kept."
        )
    else:
        sentence = "Unverified: no labels could be held out, and an alarm was raised: the labels-only model is kept."
    return Verdict(candidate if use else BASELINE, use, None, None, reasons, sentence)


def _merit(probs: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    return float((probs.argmax(axis=1) == labels).mean()), -nll(probs, labels)


def _title(stage: str) -> str:
    return {"self_training": "self-trained", "pretext": "pretext-adapted"}.get(stage, stage.replace("_", " "))
