"""What is recorded of a round of self-training (a line of `rounds.jsonl`), and whether the rounds end with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.inference.scoring import predict_logits
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.signals import signal_facts
from hfssl.methods.self_training.pseudo_labeler import LabeledPool
from hfssl.metrics.significance import disagreement, sign_test
from hfssl.tasks.base import Task
from hfssl.tasks.registry import get_task

__all__ = ["describe_round", "health", "is_kept", "measure_student", "termination_condition"]

NOISE = 0.05  # a student that loses more held-out rows than it would by chance once in 20 times has fallen


def describe_round(
    number: int,
    found: LabeledPool,
    label_names: Sequence[str],
    *,
    before: np.ndarray | None = None,
    hidden_labels: np.ndarray | None = None,
    task: Task | None = None,
) -> dict[str, Any]:
    """Returns what a reader wants to know about the pseudo-labels of a round; hidden labels are used here only.

    Args:
        number (`int`): Number of the round, from 0.
        found (`LabeledPool`): Pseudo-labels of N rows.
        label_names (`Sequence[str]`): K names.
        before (`np.ndarray`, *optional*): `[N]` labels of the round before.
        hidden_labels (`np.ndarray`, *optional*): `[N]` true classes where known, else -1.
        task (`Task`, *optional*): What a prediction is. Default: one label per text.
    """
    task = get_task() if task is None else task
    rows, predicted = found.labels.rows, found.labels.predicted
    known = rows[:0] if hidden_labels is None else rows[hidden_labels[rows] >= 0]
    prior, classes = found.class_prior, task.unit_classes(label_names)
    return {
        "round": number,
        "selected": len(rows),
        "per_class": task.count_pseudo_labels(rows, predicted, label_names),
        **signal_facts(found.signals),
        "class_prior": None if prior is None else dict(zip(classes, prior.tolist(), strict=True)),
        "mean_weight": float(found.labels.weights.mean()) if len(rows) else 0.0,
        "mean_bald": float(found.labels.bald.mean()),
        "pool_agreement": None if before is None else float((before == predicted).mean()),
        "pseudo_label_accuracy": float((predicted[known] == hidden_labels[known]).mean()) if len(known) else None,
        "probe_weight": found.mixture_weight,
        "temperature": found.temperature,
        "teacher_disagreement": disagreement(task.unit_predicted(found.ensemble.teacher_probs)),
    }


def health(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a round's record before its student is trained, for the training log."""
    numbers = {name: value for name, value in record.items() if isinstance(value, int | float) and name != "round"}
    return {f"round/{name}": value for name, value in numbers.items()}


def measure_student(
    student: PreTrainedModel,
    previous: PreTrainedModel,
    validation: Dataset | None,
    tokenizer: PreTrainedTokenizerBase,
    task: Task | None = None,
) -> dict[str, Any]:
    """Returns a student's metrics on held-out rows, `None` without any, and the probability of its loss by chance.

    Collective: every rank must call this.

    Args:
        student (`PreTrainedModel`): The round's.
        previous (`PreTrainedModel`): The one of the round before, with which it is compared; itself for no comparison.
        validation (`Dataset`, *optional*): Tokenized rows with `labels`.
        tokenizer (`PreTrainedTokenizerBase`): Pads the batches.
        task (`Task`, *optional*): What a prediction is. Default: one label per text.
    """
    task = get_task() if task is None else task
    if validation is None or len(validation) == 0:
        return {"validation": None, "lost_by_chance": 1.0}
    labels = task.label_array(validation)
    probs = task.probs(predict_logits(student, validation, tokenizer))
    was = probs if previous is student else task.probs(predict_logits(previous, validation, tokenizer))
    chance = sign_test(task.right(was, labels), task.right(probs, labels))
    return {"validation": task.evaluate(probs, labels), "lost_by_chance": chance}


def termination_condition(record: Mapping[str, Any], args: SelfTrainingConfig) -> str:
    """Returns why the rounds end after this one, or an empty string."""
    if record["selected"] == 0:
        return "nothing_selected"
    if record["lost_by_chance"] <= NOISE:
        return "validation_fell"
    if record["pool_agreement"] is not None and record["pool_agreement"] >= args.stop_agreement:
        return "labels_stable"
    return "max_rounds" if record["round"] + 1 >= args.rounds else ""


def is_kept(record: Mapping[str, Any]) -> bool:
    """Whether the student of a finished round is the one that the rounds go on with, or end with."""
    return record["selected"] > 0 and record["termination_condition"] != "validation_fell"
