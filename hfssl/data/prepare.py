"""Makes splits from `DataArguments`, for `fit` and the recipes."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset

from hfssl.config.arguments import DataArguments
from hfssl.data.label_column import LabelColumn
from hfssl.data.loading import load_table
from hfssl.data.splits import SemiSupervisedSplits, few_label_splits
from hfssl.data.tables import read_label_names
from hfssl.errors import DataError

__all__ = ["make_splits"]


def make_splits(
    arguments: DataArguments,
    seed: int,
    label_column: LabelColumn | None = None,
    *,
    validation_fraction: float = 0.2,
) -> SemiSupervisedSplits:
    """Loads the tables in `arguments` and splits them; all tables share the label names of the first one.

    Only the first table must have the group and the id column: the others often have another source.

    Args:
        arguments (`DataArguments`): Tables and their columns.
        seed (`int`): Random seed of the splits; see `few_label_splits`.
        label_column (`LabelColumn`, *optional*): Layout of the labels in their column. Default: one class per row.
        validation_fraction (`float`, defaults to `0.2`): Share of the labels that is held out as `validation`.

    Raises:
        DataError: if a table, a column or a label cannot be used.
    """
    columns = {
        "text_column": arguments.text_column,
        "text_pair_column": arguments.text_pair_column,
        "group_column": arguments.group_column,
        "id_column": arguments.id_column,
    }

    def load(path: str | None, label_column: str | None) -> Dataset | None:
        if path is None:
            return None
        optional = ("group_column", "id_column")
        return load_table(path, label_column=label_column, label_names=names, optional=optional, **columns)

    names = None if arguments.class_names is None else _given_names(arguments.class_names)
    table = load_table(arguments.train, label_column=arguments.label_column, label_names=names, **columns)
    names = table.features["label"].names
    return few_label_splits(
        table,
        labels_per_class=arguments.labels_per_class,
        test=load(arguments.test, arguments.label_column),
        validation=load(arguments.validation, arguments.label_column),
        unlabeled=load(arguments.unlabeled, None),
        max_unlabeled=arguments.max_unlabeled,
        max_test=arguments.max_test,
        validation_fraction=validation_fraction,
        seed=seed,
        label_column=label_column,
    )


def _given_names(given: str) -> list[str]:
    """Reads label names from a JSON file, or from words with commas between them."""
    if Path(given).suffix != ".json":
        return [name.strip() for name in given.split(",")]
    names = read_label_names(Path(given))
    if names is None:
        raise DataError(f"expected a JSON list of different label names in '{given}', found none: check the file.")
    return names
