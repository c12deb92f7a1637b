"""The record of what a teacher hands to its student: rows, targets, weights."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from datasets import Dataset

from hfssl.runtime.files import read_arrays, write_arrays
from hfssl.runtime.progress import library_bars
from hfssl.tasks.base import Task
from hfssl.tasks.registry import get_task

__all__ = ["PseudoLabels"]


@dataclass(frozen=True)
class PseudoLabels:
    """What a teacher hands to its student. N units of the pool (rows, with one label per text), S selected, K classes.

    Attributes:
        rows (`np.ndarray`): `[S]` numbers of units of the pool, ascending.
        target_probs (`np.ndarray`): `[S, K]`, one-hot or soft.
        weights (`np.ndarray`): `[S]` with mean 1.
        predicted (`np.ndarray`): `[N]` label of *every* unit of the pool.
        bald (`np.ndarray`): `[N]`, uncertainty in nats.
    """

    rows: np.ndarray
    target_probs: np.ndarray
    weights: np.ndarray
    predicted: np.ndarray
    bald: np.ndarray

    def training_rows(self, pool: Dataset, task: Task | None = None) -> Dataset:
        """Returns the selected rows of the pool, with their `pseudo_probs` and `weight`.

        Args:
            pool (`Dataset`): Encoded rows.
            task (`Task`, *optional*): What a prediction is. Default: one label per text.
        """
        task = get_task() if task is None else task
        with library_bars():
            units_per_row = len(self.predicted) // len(pool)
            return task.pseudo_labeled(pool, self.rows, self.target_probs, self.weights, units_per_row)

    def save(self, path: Path, **more: np.ndarray | None) -> None:
        """Writes an `.npz` file, whole or not at all, with `more` arrays in it (those that are not `None`)."""
        write_arrays(path, vars(self) | more)

    @classmethod
    def load(cls, path: Path) -> tuple[PseudoLabels, dict[str, np.ndarray]]:
        """Reads what `save` has written: the labels, and the other arrays."""
        arrays = read_arrays(path)
        return cls(*(arrays.pop(field.name) for field in fields(cls))), arrays
