"""`LabelColumn`: how labels lie in a column of a table, and what splits count of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel

__all__ = ["UNLABELED", "LabelColumn"]

UNLABELED = -1


class LabelColumn:
    """One class number per row, -1 for an unlabeled one. Subclasses hold other labels (a list of classes, say).

    Whatever a label is, splits need four things of it: whether it is there, its classes, its stratum, and itself with
    the class numbers of another table.
    """

    missing: Any = UNLABELED

    def feature(self, names: Sequence[str]) -> Any:
        """The `datasets` feature of such a column."""
        return ClassLabel(names=list(names))

    def names(self, feature: Any) -> list[str] | None:
        """K names of the classes; `None` for a feature that holds no such labels."""
        return list(feature.names) if isinstance(feature, ClassLabel) else None

    def is_labeled(self, label: Any) -> bool:
        """Whether the row has a label."""
        return label is not None and label >= 0

    def classes(self, label: Any) -> Sequence[int]:
        """Class numbers in a label; none for an unlabeled row."""
        return (label,) if self.is_labeled(label) else ()

    def renumbered(self, label: Any, position: Sequence[int]) -> Any:
        """The label with `position[c]` for each class number c; missing where that is -1."""
        return position[label] if self.is_labeled(label) else self.missing

    def strata(self, labels: Sequence[Any]) -> np.ndarray:
        """`[N]` int64 stratum of each row for splits and folds; -1 for an unlabeled row.

        Example:
            >>> LabelColumn().strata([2, None, 0, -1]).tolist()
            [2, -1, 0, -1]
        """
        return np.array([-1 if label is None else int(label) for label in labels], dtype=np.int64)

    def stratum_names(self, names: Sequence[str], strata: np.ndarray) -> Sequence[str]:
        """A name for each number in `strata`, from 0 on, for messages: here those of the classes."""
        return names
