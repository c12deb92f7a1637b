"""Prepares what a user gives to a trainer: a model or its id, data sets in any format, labels of any kind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, IterableDataset
from transformers import PreTrainedModel

from hfssl.config.values import plain_value
from hfssl.data.formats.base import counted, listed
from hfssl.data.label_column import UNLABELED, LabelColumn
from hfssl.errors import DataError, ModelError, near_matches
from hfssl.models.introspection import transformers_model
from hfssl.models.loading import load_classifier, load_masked_lm
from hfssl.tasks.base import Task

__all__ = ["label_names_of", "label_names_of_model", "labeled_rows", "load_trainable", "plain_rows"]

LABELS = ("labels", "label")


def plain_rows(dataset: Any, name: str) -> Dataset:
    """Returns a data set without a format, so that its values are Python's own.

    Args:
        dataset (`Any`): What the user gave.
        name (`str`): Name of the argument, for messages.

    Raises:
        DataError: for a stream, whose length is not known, and for anything else but a `datasets.Dataset`.
    """
    if isinstance(dataset, IterableDataset):
        raise DataError(
            f"expected a Dataset with a length as {name}, got a stream (IterableDataset): collect its rows with "
            "Dataset.from_list(list(stream))."
        )
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"expected a datasets.Dataset as {name}, got a {type(dataset).__name__}: hfssl.load_table makes one of "
            "files, frames, dicts and lists."
        )
    return dataset.with_format(None) if dataset.format["type"] is not None else dataset


def label_names_of(dataset: Dataset | None) -> list[str]:
    """Returns the names of the classes in a data set: those of its `ClassLabel`, else its different labels, sorted.

    Args:
        dataset (`Dataset`, *optional*): Rows with a column `label` or `labels`.

    Raises:
        DataError: if there are no labels.
    """
    column = None if dataset is None else next((name for name in LABELS if name in dataset.column_names), None)
    if dataset is None or column is None:
        raise DataError(
            "expected labels in train_dataset, from which the classes of a new model are taken, got none: give rows "
            "with a column `label`, or a model from hfssl.load_classifier."
        )
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    values = {plain_value(value) for value in dataset[column][:]} - {None, UNLABELED}
    if all(isinstance(value, str) for value in values):
        return sorted(values)
    if not all(isinstance(value, int | float) and value == int(value) and value >= 0 for value in values):
        raise DataError(
            f"expected names or class numbers as labels in train_dataset, got {listed(list(values), 4)}: give each "
            "row one class."
        )
    return [str(number) for number in range(max(map(int, values), default=0) + 1)]


def load_trainable(
    model: Any, dataset: Dataset | None, task: Task, *, seed: int, masked_lm: bool = False
) -> PreTrainedModel:
    """Returns the model of a trainer: a given one unchanged, or a new one on the backbone that is named.

    Args:
        model (`Any`): Model, or folder or Hub id of a backbone.
        dataset (`Dataset`, *optional*): Labeled rows, which name the classes of a new classifier.
        task (`Task`): Kind of prediction.
        seed (`int`): Random seed of the head.
        masked_lm (`bool`, defaults to `False`): Whether the trainer needs a masked language model.

    Raises:
        ModelError: if the backbone cannot be used, or the model is something else.
    """
    if not isinstance(model, str | os.PathLike):
        try:
            transformers_model(model)
        except (StopIteration, AttributeError):
            raise ModelError(
                f"Expected a model, or a folder or Hub id of a backbone, got a {type(model).__name__}: make a model "
                "with hfssl.load_classifier."
            ) from None
        return model
    if masked_lm:
        return load_masked_lm(model if isinstance(model, str) else Path(model), seed=seed)
    return load_classifier(os.fspath(model), label_names_of(dataset), seed=seed, **task.model_options())


def label_names_of_model(model: Any) -> list[str]:
    """Returns the names of a model's classes, in the order of the logits.

    Args:
        model (`Any`): Model, with or without an adapter.
    """
    names = transformers_model(model).config.id2label
    return [names[number] for number in sorted(names)]


def labeled_rows(
    dataset: Dataset, label_names: Sequence[str], name: str, task: Task, *, optional: bool = False
) -> Dataset:
    """Returns rows whose labels are class numbers of the model.

    Names, booleans, whole floats and numbers of a `ClassLabel` with another order are converted.

    Args:
        dataset (`Dataset`): Rows with a column `label` or `labels`; without one they are returned unchanged.
        label_names (`Sequence[str]`): Names of the model's K classes.
        name (`str`): Name of the argument, for messages.
        task (`Task`): Kind of prediction; labels that are not one class per row are left to it.
        optional (`bool`, defaults to `False`): Whether rows may lack a label: the column is then left out.

    Raises:
        DataError: for the first label that is none of the classes, and for rows without a label.
    """
    column = next((column for column in LABELS if column in dataset.column_names), None)
    if column is None or type(task.label_column) is not LabelColumn or not task.class_per_row:
        return dataset
    feature, values = dataset.features[column], dataset[column][:]
    own = list(feature.names) if isinstance(feature, ClassLabel) else []
    renamed = own if own and own != list(label_names) and set(own) <= set(label_names) else None
    numbers: dict[Any, int] = {}
    found = []
    for row, value in enumerate(values):
        key = (type(value), str(value))
        if key not in numbers:
            numbers[key] = _class_number(value, label_names, renamed, f"row {row} of {name}")
        found.append(numbers[key])
    missing = found.count(UNLABELED)
    if missing and optional:
        return dataset.remove_columns(column)
    if missing:
        raise DataError(
            f"expected a label in each row of {name}, got {counted(missing, 'row')} without one (-1 or missing): "
            "leave these rows out, or give them as unlabeled_dataset."
        )
    return dataset if found == values and _are_integers(values) else _with_column(dataset, column, found)


def _are_integers(values: Sequence[Any]) -> bool:
    return all(type(value) is int for value in values)  # 1.0 == 1 == True


def _with_column(dataset: Dataset, column: str, values: list[int]) -> Dataset:
    if dataset.column_names == [column]:  # without any column datasets forgets the number of rows
        return Dataset.from_dict({column: values})
    return dataset.remove_columns(column).add_column(column, values)  # pyright: ignore[reportCallIssue]


def _class_number(value: Any, names: Sequence[str], own: Sequence[str] | None, place: str) -> int:
    """Returns the number of a class; `UNLABELED` for none."""
    value = plain_value(value)
    if value is None or value == UNLABELED or (isinstance(value, float) and value != value):
        return UNLABELED
    if isinstance(value, str):
        if value in names:
            return list(names).index(value)
        raise DataError(
            f"expected labels among {listed(names)}, got '{value}' in {place}.{near_matches(value, names)} Correct "
            "it, or make the model with that class."
        )
    whole = isinstance(value, int | float) and value == int(value)
    if not whole or not 0 <= value < len(own or names):
        raise DataError(
            f"expected class numbers from 0 to {len(own or names) - 1} ("
            f"{listed(own or names)}) or their names, got {value!r} in {place}: number the classes from 0, or give "
            "names."
        )
    return list(names).index(own[int(value)]) if own else int(value)
