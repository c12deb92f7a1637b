"""Pseudo-labels, as a student reads them: rows, targets, weights."""

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
    """Holds pseudo-labels for N units of the pool (rows, with one label per text), S of them selected, and K classes.

    Attributes:
        rows (`np.ndarray`): Numbers of the selected units of the pool, `[S]`, ascending.
        target_probs (`np.ndarray`): Targets of the selected units, `[S, K]`, one-hot or soft.
        weights (`np.ndarray`): Weights of the selected units, `[S]`, with mean 1.
        predicted (`np.ndarray`): Label of *every* unit of the pool, `[N]`.
        bald (`np.ndarray`): Uncertainty of every unit in nats, `[N]`.
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
            task (`Task`, *optional*): Kind of prediction. Default: one label per text.
        """
        task = get_task() if task is None else task
        with library_bars():
            units_per_row = len(self.predicted) // len(pool)
            return task.pseudo_labeled(pool, self.rows, self.target_probs, self.weights, units_per_row)

    def save(self, path: Path, **more: np.ndarray | None) -> None:
        """Writes an `.npz` file, completely or not at all.

        Args:
            path (`Path`): The file.
            more (`np.ndarray`, *optional*): Further arrays; those that are `None` are left out.
        """
        write_arrays(path, vars(self) | more)

    @classmethod
    def load(cls, path: Path) -> tuple[PseudoLabels, dict[str, np.ndarray]]:
        """Reads a file of `save`: the labels, and the other arrays by name."""
        arrays = read_arrays(path)
        return cls(*(arrays.pop(field.name) for field in fields(cls))), arrays
