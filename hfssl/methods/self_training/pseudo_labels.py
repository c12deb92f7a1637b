"""The record of what a teacher hands to its student: rows, targets, weights."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from datasets import Dataset

from hfssl.runtime.files import read_arrays, write_arrays
from hfssl.runtime.progress import library_bars

__all__ = ["PseudoLabels"]


@dataclass(frozen=True)
class PseudoLabels:
    """What a teacher hands to its student. N rows of the pool, S of them selected, K classes.

    Attributes:
        rows (`np.ndarray`): `[S]` row numbers in the pool, ascending.
        target_probs (`np.ndarray`): `[S, K]`, one-hot or soft.
        weights (`np.ndarray`): `[S]` with mean 1.
        predicted (`np.ndarray`): `[N]` label of *every* row of the pool.
        bald (`np.ndarray`): `[N]`, uncertainty in nats.
    """

    rows: np.ndarray
    target_probs: np.ndarray
    weights: np.ndarray
    predicted: np.ndarray
    bald: np.ndarray

    def training_rows(self, pool: Dataset) -> Dataset:
        """Returns the selected rows of the pool, with their `pseudo_probs` and `weight`."""
        with library_bars():
            selected = pool.select(self.rows).add_column("pseudo_probs", self.target_probs.tolist())
            return selected.add_column("weight", self.weights.tolist())

    def save(self, path: Path, **more: np.ndarray | None) -> None:
        """Writes an `.npz` file, whole or not at all, with `more` arrays in it (those that are not `None`)."""
        write_arrays(path, vars(self) | more)

    @classmethod
    def load(cls, path: Path) -> tuple[PseudoLabels, dict[str, np.ndarray]]:
        """Reads what `save` has written: the labels, and the other arrays."""
        arrays = read_arrays(path)
        return cls(*(arrays.pop(field.name) for field in fields(cls))), arrays
