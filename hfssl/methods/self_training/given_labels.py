"""Pseudo-labels that the user brings: of an LLM, of rules, of another model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from hfssl.data.label_column import UNLABELED
from hfssl.errors import DataError
from hfssl.tasks.base import Task
from hfssl.training.inputs import labeled_rows

__all__ = ["with_pseudo_labels"]

ROUNDING = 1e-3  # by how much the sum of a row's probabilities may differ from 1


def with_pseudo_labels(pool: Dataset, label_names: Sequence[str], task: Task) -> Dataset:
    """Returns a pool with checked `pseudo_probs` and `weight`, which the loss of a student reads.

    A column `pseudo_label` (a class name or number) becomes probabilities of 0 and 1; rows without one are left out. A
    missing `weight` is 1.

    Args:
        pool (`Dataset`): Rows with `pseudo_probs` `[K]` or `pseudo_label`, and possibly `weight`.
        label_names (`Sequence[str]`): The K class names.
        task (`Task`): Kind of prediction; pseudo-labels that are not one class per row are left to it.

    Raises:
        DataError: for the first row whose pseudo-label or weight cannot be used.

    Example:
        >>> from datasets import Dataset
        >>> from hfssl.tasks.registry import get_task
        >>> pool = Dataset.from_dict({"text": ["a", "b", "c"], "pseudo_label": ["good", None, "bad"]})
        >>> with_pseudo_labels(pool, ["bad", "good"], get_task())["pseudo_probs"][:]
        [[0.0, 1.0], [1.0, 0.0]]
    """
    if not task.class_per_row:
        return pool
    if "pseudo_probs" not in pool.column_names:
        pool = _from_labels(pool, label_names, task)
    if "weight" not in pool.column_names:
        pool = pool.add_column("weight", [1.0] * len(pool))  # pyright: ignore[reportCallIssue]
    _check(pool, len(label_names))
    return pool


def _from_labels(pool: Dataset, label_names: Sequence[str], task: Task) -> Dataset:
    if "pseudo_label" not in pool.column_names:
        raise DataError(
            "expected a column `pseudo_probs` (K probabilities a row) or `pseudo_label` (a class) in "
            f"unlabeled_dataset, found {', '.join(pool.column_names)}: SelfTraining makes pseudo-labels in rounds, "
            "SelfTrainingTrainer learns from given ones."
        )
    given = [label not in (None, "", UNLABELED) for label in pool["pseudo_label"][:]]
    pool = pool.select(np.flatnonzero(given))
    labels = Dataset.from_dict({"label": pool["pseudo_label"][:]})
    numbers = labeled_rows(labels, label_names, "unlabeled_dataset (`pseudo_label`)", task)["label"][:]
    return pool.add_column("pseudo_probs", np.eye(len(label_names))[numbers].tolist())  # pyright: ignore[reportCallIssue]


def _check(pool: Dataset, classes: int) -> None:
    rows = pool["pseudo_probs"][:]
    wrong = next((row for row, probs in enumerate(rows) if np.shape(probs) != (classes,)), None)
    if wrong is None and rows:
        probs = np.asarray(rows, dtype=np.float64)
        fine = np.isfinite(probs).all(axis=1) & (probs >= 0).all(axis=1) & (abs(probs.sum(axis=1) - 1) <= ROUNDING)
        wrong = None if fine.all() else int(np.flatnonzero(~fine)[0])
    if wrong is not None:
        raise DataError(
            f"expected {classes} probabilities that sum to 1 in each row of `pseudo_probs`, got {rows[wrong]} in row "
            f"{wrong}: divide each row by its sum, with a number for each class."
        )
    weights = np.asarray(pool["weight"][:], dtype=np.float64)
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise DataError(
            f"expected weights of at least 0 in the column `weight`, got {weights[bad[0]]} in row {bad[0]}: give each "
            "row a number, 0 for a row that does not count."
        )
