"""Records of the rounds of self-training (lines of `rounds.jsonl`), and the condition that ends the rounds."""

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

NOISE = 0.05  # significance level of the test whether a student is worse than the previous one


def describe_round(
    number: int,
    found: LabeledPool,
    label_names: Sequence[str],
    *,
    before: np.ndarray | None = None,
    hidden_labels: np.ndarray | None = None,
    task: Task | None = None,
) -> dict[str, Any]:
    """Returns facts about the pseudo-labels of a round for a reader; no other function uses hidden labels.

    Args:
        number (`int`): Number of the round, from 0.
        found (`LabeledPool`): Pseudo-labels of N rows.
        label_names (`Sequence[str]`): Names of the K classes.
        before (`np.ndarray`, *optional*): Labels of the previous round, `[N]`.
        hidden_labels (`np.ndarray`, *optional*): True classes where known, else -1, `[N]`.
        task (`Task`, *optional*): Kind of prediction. Default: one label per text.
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
        "member_weights": found.weights,
        "temperature": found.temperature,
        "teacher_disagreement": disagreement(task.unit_predicted(found.ensemble.teacher_probs)),
    }


def health(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a round's record, without those of its student, for the training log."""
    numbers = {name: value for name, value in record.items() if isinstance(value, int | float) and name != "round"}
    return {f"round/{name}": value for name, value in numbers.items()}


def measure_student(
    student: PreTrainedModel,
    previous: PreTrainedModel,
    validation: Dataset | None,
    tokenizer: PreTrainedTokenizerBase,
    task: Task | None = None,
) -> dict[str, Any]:
    """Returns a student's metrics on held-out rows, `None` without any, and the p-value of its losses.

    `lost_by_chance` is the probability that chance alone makes the student lose so many rows (`sign_test`).
    Collective: every rank must call this.

    Args:
        student (`PreTrainedModel`): Student of the round.
        previous (`PreTrainedModel`): Student of the previous round, for comparison; `student` itself for no
            comparison.
        validation (`Dataset`, *optional*): Tokenized rows with `labels`.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        task (`Task`, *optional*): Kind of prediction. Default: one label per text.
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
    """Returns the reason why the rounds end after this one, or an empty string.

    Args:
        record (`Mapping[str, Any]`): Record of the round.
        args (`SelfTrainingConfig`): Settings of the rounds.
    """
    if record["selected"] == 0:
        return "nothing_selected"
    if record["lost_by_chance"] <= NOISE:
        return "validation_fell"
    if record["pool_agreement"] is not None and record["pool_agreement"] >= args.stop_agreement:
        return "labels_stable"
    return "max_rounds" if record["round"] + 1 >= args.rounds else ""


def is_kept(record: Mapping[str, Any]) -> bool:
    """Returns whether the student of a finished round is the next teacher or the final model."""
    return record["selected"] > 0 and record["termination_condition"] != "validation_fell"
