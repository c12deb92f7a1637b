"""Implements `hfssl evaluate`: measures a saved model on a labeled table."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from hfssl.data.loading import load_table
from hfssl.deploy.text_classifier import open_classifier
from hfssl.errors import DataError
from hfssl.metrics.classification import class_scores, confusion_matrix, evaluate_probs
from hfssl.metrics.significance import accuracy_interval
from hfssl.runtime.files import write_json

__all__ = ["ClassResult", "Evaluation", "Slice", "evaluate"]

BOOTSTRAP_SAMPLES, CONFIDENCE = 1000, 95
METRICS = ("accuracy", "macro_f1", "nll", "ece")


@dataclass(frozen=True)
class Slice:
    """Holds the accuracy on the rows with one value of a column.

    Args:
        value (`str`): The value.
        rows (`int`): Number of rows.
        accuracy (`float`): Accuracy in [0, 1].
        interval (`tuple[float, float]`): Its 95% interval (Wilson 1927).
    """

    value: str
    rows: int
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class ClassResult:
    """Holds the scores of one class, in [0, 1]: rows that have it, precision, recall and F1."""

    name: str
    rows: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Evaluation:
    """Holds what `evaluate` measured.

    Args:
        rows (`int`): Number of labeled rows that were predicted.
        without_label (`int`): Number of rows left out, as they have no label.
        without_text (`int`): Number of labeled rows left out, as they have no text.
        metrics (`dict[str, float]`): `accuracy`, `macro_f1` and `ece` in [0, 1], `nll` in nats.
        intervals (`dict[str, tuple[float, float]]`): 95% interval of each metric: Wilson's for the accuracy, else of
            1,000 bootstrap samples of the rows (Efron 1979), 2.5th to 97.5th percentile.
        largest_class (`str`): Most frequent class of the table.
        largest_class_accuracy (`float`): Accuracy of always predicting it.
        classes (`list[ClassResult]`): Scores of each class that occurs, the lowest F1 first.
        slices (`list[Slice]`): Accuracy by value of the slice column, the lowest first.
    """

    rows: int
    without_label: int
    without_text: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    largest_class: str
    largest_class_accuracy: float
    classes: list[ClassResult]
    slices: list[Slice]


def evaluate(
    model: str | os.PathLike,
    data: str | os.PathLike,
    *,
    text_column: str = "text",
    text_pair_column: str | None = None,
    label_column: str = "label",
    slice_column: str | None = None,
    output: str | os.PathLike | None = None,
    max_length: int | None = None,
) -> Evaluation:
    """Measures a saved model on the labeled rows of a table.

    Args:
        model (`str | os.PathLike`): Folder of a finished run, a full model, an adapter or an ONNX export, or a Hub id.
        data (`str | os.PathLike`): Table of any kind that `load_table` reads.
        text_column (`str`, defaults to `"text"`): Column with the text.
        text_pair_column (`str`, *optional*): Column with the second text of a pair.
        label_column (`str`, defaults to `"label"`): Column with the label: names of the model's labels, or their
            numbers.
        slice_column (`str`, *optional*): Column by whose values the accuracy is shown, too.
        output (`str | os.PathLike`, *optional*): JSON file to write the `Evaluation` to.
        max_length (`int`, *optional*): Number of tokens at which texts are cut. Default: the limit of the model's
            tokenizer.

    Raises:
        DataError: if the table cannot be used, holds a label that the model does not know, or no labeled row.
        ModelError: if the model cannot be loaded.
    """
    classifier = open_classifier(model, max_length)
    table = load_table(
        data, text_column, label_column, text_pair_column=text_pair_column, group_column=slice_column,
        label_names=classifier.label_names,
    )  # fmt: skip
    labels = np.asarray(table["label"][:])
    texts = [table[name][:] for name in ("text", "text_pair") if name in table.column_names]
    filled = np.array([any(part.strip() for part in parts) for parts in zip(*texts, strict=True)])
    used = np.flatnonzero((labels >= 0) & filled)
    if not len(used):
        raise DataError(
            f"Expected rows with a text and a label in '{data}', but none of its {len(labels)} rows has both: name "
            "the right columns with --text-column and --label-column."
        )
    rows = [tuple(column[row] for column in texts) for row in used]
    logits = classifier.predict_logits(classifier.tokenized(rows))
    probs = classifier.task.probs(torch.from_numpy(logits)).numpy().astype(np.float64)
    values = None if slice_column is None else [table["group"][row] for row in used.tolist()]
    evaluation = _measured(probs, labels[used], classifier.label_names, values, labels, filled)
    if output is not None:
        write_json(Path(output), asdict(evaluation))
    return evaluation


def _measured(
    probs: np.ndarray, truth: np.ndarray, names: list[str], values: list[str] | None, labels: np.ndarray,
    filled: np.ndarray,
) -> Evaluation:  # fmt: skip
    counts = np.bincount(truth, minlength=len(names))
    metrics = evaluate_probs(probs, truth)
    right = probs.argmax(axis=1) == truth
    return Evaluation(
        rows=len(truth),
        without_label=int((labels < 0).sum()),
        without_text=int(((labels >= 0) & ~filled).sum()),
        metrics=metrics,
        intervals=_intervals(probs, truth, metrics["accuracy"]),
        largest_class=names[int(counts.argmax())],
        largest_class_accuracy=float(counts.max() / len(truth)),
        classes=_classes(probs, truth, names),
        slices=_slices(right, values),
    )


def _intervals(probs: np.ndarray, truth: np.ndarray, accuracy: float) -> dict[str, tuple[float, float]]:
    generator = np.random.default_rng(0)
    samples = generator.integers(len(truth), size=(BOOTSTRAP_SAMPLES, len(truth)))
    measured = [evaluate_probs(probs[rows], truth[rows]) for rows in samples]
    tail = (100 - CONFIDENCE) / 2
    found = {}
    for name in METRICS:
        low, high = np.percentile([values[name] for values in measured], [tail, 100 - tail])
        found[name] = (float(low), float(high))
    return found | {"accuracy": accuracy_interval(accuracy, len(truth))}


def _classes(probs: np.ndarray, truth: np.ndarray, names: list[str]) -> list[ClassResult]:
    scores = class_scores(confusion_matrix(probs.argmax(axis=1), truth, len(names)))
    found = [
        ClassResult(name, int(support), float(precision), float(recall), float(f1))
        for name, support, predicted, precision, recall, f1 in zip(
            names, scores.support, scores.predicted, scores.precision, scores.recall, scores.f1, strict=True
        )
        if support + predicted
    ]
    return sorted(found, key=lambda result: result.f1)


def _slices(right: np.ndarray, values: list[str] | None) -> list[Slice]:
    if values is None:
        return []
    keys = np.asarray(values)
    found = []
    for value in dict.fromkeys(values):
        here = right[keys == value]
        found.append(Slice(value, len(here), float(here.mean()), accuracy_interval(float(here.mean()), len(here))))
    return sorted(found, key=lambda one: one.accuracy)
