"""Baselines: the simplest alternatives to a trained model, and whether the model is better than they are.

The majority class is logistic regression without features; the probe is logistic regression on the frozen backbone's
mean over the tokens. Both go through the task's own head fit, so that they exist for every task with row vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hfssl.functional.logistic_regression import logistic_weights
from hfssl.metrics.significance import paired_gain
from hfssl.tasks.base import Task

__all__ = [
    "BASELINES",
    "MAJORITY",
    "PROBE",
    "Standing",
    "baseline_logits",
    "judge_standing",
    "out_of_fold_logits",
]

MAJORITY, PROBE = "majority", "probe"

BASELINES: Mapping[str, str] = {
    MAJORITY: "Always the most frequent label",
    PROBE: "Logistic regression on the frozen backbone",
}
"""Name -> title of the baselines, in the order of the tables."""


def baseline_logits(
    known: np.ndarray, labels: np.ndarray, others: np.ndarray, num_outputs: int, task: Task
) -> np.ndarray:
    """Returns the logits of logistic regression on embeddings for other rows, `[N, num_outputs]`.

    Args:
        known (`np.ndarray`): Embeddings of the labeled rows, `[L, D]`; with D = 0 only the class prior is learned.
        labels (`np.ndarray`): Their labels, in the format of `Task.label_array`.
        others (`np.ndarray`): Embeddings of the rows to predict, `[N, D]`.
        num_outputs (`int`): Number of outputs of a model of the task.
        task (`Task`): Kind of prediction.
    """
    rows, wanted = (np.zeros((len(values), 1)) if values.shape[1] == 0 else values for values in (known, others))
    weight, bias = task.head_weights(logistic_weights, torch.from_numpy(np.float64(rows)), labels, num_outputs)
    return (np.float64(wanted) @ np.asarray(weight).T + np.asarray(bias)).astype(np.float32)


def out_of_fold_logits(
    known: np.ndarray, labels: np.ndarray, numbers: np.ndarray | None, num_outputs: int, task: Task
) -> np.ndarray:
    """Returns the same for labeled rows, each predicted by a regression without its fold; all rows without folds.

    Args:
        known (`np.ndarray`): Embeddings of the labeled rows, `[L, D]`.
        labels (`np.ndarray`): Their labels, in the format of `Task.label_array`.
        numbers (`np.ndarray`, *optional*): Fold of each row, `[L]`, -1 for none; `None` leaves out one row at a time.
        num_outputs (`int`): Number of outputs of a model of the task.
        task (`Task`): Kind of prediction.

    Returns:
        Logits `[L', num_outputs]` of the rows in folds, in their order.
    """
    numbers = np.arange(len(labels)) if numbers is None else numbers
    found = np.zeros((len(labels), num_outputs), np.float32)
    for number in np.unique(numbers[numbers >= 0]):
        train, rest = numbers != number, numbers == number
        if len(np.unique(labels[train], axis=0)) < 2:
            continue  # nothing to tell apart: all outputs stay equal
        found[rest] = baseline_logits(known[train], labels[train], known[rest], num_outputs, task)
    return found[numbers >= 0]


@dataclass(frozen=True)
class Standing:
    """Says whether the final model is better than a baseline, beyond noise.

    Attributes:
        baseline (`str`): Name in `BASELINES`.
        gain (`float`): Gain of the final model over it, in `[-1, 1]`.
        interval (`list[float]`): 95% interval of the gain; see `paired_gain`.
    """

    baseline: str
    gain: float
    interval: list[float]

    @property
    def is_better(self) -> bool:
        """Returns whether the whole interval is above 0."""
        return self.interval[0] > 0

    def as_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        return {"baseline": self.baseline, "gain": self.gain, "interval": self.interval, "is_better": self.is_better}


def judge_standing(
    final: np.ndarray, baselines: Mapping[str, np.ndarray], labels: np.ndarray, task: Task
) -> list[Standing]:
    """Compares the final model with each baseline, row by row.

    Args:
        final (`np.ndarray`): Probabilities of the final model, `[N, K]`, N at least 1.
        baselines (`Mapping[str, np.ndarray]`): Name -> probabilities for the same rows.
        labels (`np.ndarray`): Labels of the rows.
        task (`Task`): Kind of prediction.

    Example:
        >>> import numpy as np
        >>> from hfssl.evaluation.baselines import judge_standing
        >>> from hfssl.tasks.registry import get_task
        >>> labels = np.array([0, 1] * 20)
        >>> majority = np.tile([0.6, 0.4], (40, 1))
        >>> judge_standing(np.eye(2)[labels], {"majority": majority}, labels, get_task())[0].is_better
        True
    """
    right = task.right(final, labels)
    found = []
    for name, probs in baselines.items():
        gain, low, high = paired_gain(task.right(probs, labels), right)
        found.append(Standing(name, gain, [low, high]))
    return found
