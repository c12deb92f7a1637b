"""Defines `LabelColumn`: the layout of labels in a column of a table, and their strata for splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel

__all__ = ["UNLABELED", "LabelColumn"]

UNLABELED = -1


class LabelColumn:
    """Describes a column with one class number per row, -1 for unlabeled rows; subclasses describe other labels.

    Splits use four properties of a label: whether it is present, its classes, its stratum, and the same label with the
    class numbers of another table.
    """

    missing: Any = UNLABELED

    def feature(self, names: Sequence[str]) -> Any:
        """Returns the `datasets` feature of such a column."""
        return ClassLabel(names=list(names))

    def names(self, feature: Any) -> list[str] | None:
        """Returns the K class names; `None` for a feature without such labels."""
        return list(feature.names) if isinstance(feature, ClassLabel) else None

    def is_labeled(self, label: Any) -> bool:
        """Returns whether a label is present."""
        return label is not None and label >= 0

    def classes(self, label: Any) -> Sequence[int]:
        """Returns the class numbers in a label; none for an unlabeled row."""
        return (label,) if self.is_labeled(label) else ()

    def counts(self, labels: Sequence[Any], names: Sequence[str]) -> dict[str, int]:
        """Returns label name -> number of rows that have it."""
        found = Counter(c for label in labels for c in self.classes(label))
        return {name: found[number] for number, name in enumerate(names)}

    def renumbered(self, label: Any, position: Sequence[int]) -> Any:
        """Returns the label with `position[c]` for each class number c; a missing label where that is -1."""
        return position[label] if self.is_labeled(label) else self.missing

    def strata(self, labels: Sequence[Any]) -> np.ndarray:
        """Returns the stratum of each row for splits and folds, `[N]` int64; -1 for an unlabeled row.

        Example:
            >>> LabelColumn().strata([2, None, 0, -1]).tolist()
            [2, -1, 0, -1]
        """
        return np.array([-1 if label is None else int(label) for label in labels], dtype=np.int64)

    def stratum_names(self, names: Sequence[str], strata: np.ndarray) -> Sequence[str]:
        """Returns a name for each number in `strata`, from 0 on, for messages: the class names."""
        return names
