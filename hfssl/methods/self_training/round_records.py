"""What is noted down of a round of self-training: a line of `rounds.jsonl`, and whether the rounds end with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.special import softmax
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.inference.scoring import predict_logits
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.signals import Neighborhood
from hfssl.methods.self_training.pseudo_labels import PseudoLabels
from hfssl.metrics.classification import evaluate_probs
from hfssl.metrics.significance import sign_test

__all__ = ["describe_round", "health", "is_kept", "measure_student", "termination_condition"]

NOISE = 0.05  # a student that loses more held-out rows than it would by chance once in 20 times has fallen


def describe_round(
    number: int,
    labels: PseudoLabels,
    label_names: Sequence[str],
    *,
    before: np.ndarray | None,
    hidden_labels: np.ndarray | None,
    around: Neighborhood | None,
    class_prior: np.ndarray | None,
    **more: float | None,
) -> dict[str, Any]:
    """What a reader wants to know about a round's pseudo-labels; hidden labels are used here only.

    Args:
        number: of the round, from 0.
        labels: those of N rows.
        label_names: K names.
        before: `[N]` labels of the round before; `None` for the first one.
        hidden_labels: `[N]` true classes where known, else -1; or `None`.
        around: what the backbone's embeddings say of the pool.
        class_prior: `[K]` that the labels were brought to; `None` for none.
        more: further numbers to note down.
    """
    rows, predicted = labels.rows, labels.predicted
    counts = np.bincount(predicted[rows], minlength=len(label_names))
    known = rows[:0] if hidden_labels is None else rows[hidden_labels[rows] >= 0]
    shares = None if class_prior is None else dict(zip(label_names, class_prior.tolist(), strict=True))
    return {
        "round": number,
        "selected": len(rows),
        "per_class": dict(zip(label_names, counts.tolist(), strict=True)),
        "ood_fraction": None if around is None else float(around.novel.mean()),
        "graph_trust": None if around is None else around.trust,
        "label_name_strength": None if around is None else around.name_strength,
        "class_prior": shares,
        "mean_weight": float(labels.weights.mean()) if len(rows) else 0.0,
        "mean_bald": float(labels.bald.mean()),
        "pool_agreement": None if before is None else float((before == predicted).mean()),
        "pseudo_label_accuracy": float((predicted[known] == hidden_labels[known]).mean()) if len(known) else None,
        **more,
    }


def health(record: Mapping[str, Any]) -> dict[str, float]:
    """What a round's record says in numbers before its student is trained, for whoever watches."""
    numbers = {name: value for name, value in record.items() if isinstance(value, int | float) and name != "round"}
    return {f"round/{name}": value for name, value in numbers.items()}


def measure_student(
    student: PreTrainedModel,
    previous: PreTrainedModel,
    validation: Dataset | None,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Any]:
    """A student's metrics on held-out rows, `None` without any, and how likely it lost so many rows by chance.

    All ranks come here.

    Args:
        student: the round's.
        previous: the one of the round before, with which it is compared; itself for no comparison.
        validation: tokenized rows with `labels`, or `None`.
        tokenizer: pads the batches.
    """
    if validation is None or len(validation) == 0:
        return {"validation": None, "lost_by_chance": 1.0}
    labels = np.asarray(validation["labels"][:])
    probs = softmax(predict_logits(student, validation, tokenizer), axis=-1)
    was = probs if previous is student else predict_logits(previous, validation, tokenizer)
    chance = sign_test(was.argmax(axis=-1) == labels, probs.argmax(axis=-1) == labels)
    return {"validation": evaluate_probs(probs, labels), "lost_by_chance": chance}


def termination_condition(record: Mapping[str, Any], args: SelfTrainingConfig) -> str:
    """Why the rounds end after this one, or an empty string."""
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
