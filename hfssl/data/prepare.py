"""Makes splits from `DataArguments`, for `fit` and the recipes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from hfssl.config.arguments import DataArguments
from hfssl.data.label_column import LabelColumn
from hfssl.data.label_names import missing_list
from hfssl.data.label_values import LabelOptions
from hfssl.data.loading import VIEW_COLUMN, read_table
from hfssl.data.sources import Source
from hfssl.data.splits import SemiSupervisedSplits, few_label_splits
from hfssl.data.tables import TableOptions, read_label_names
from hfssl.errors import DataError

__all__ = ["make_splits"]

COLUMNS = ("text_column", "text_pair_column", "label_column", "group_column", "id_column")


def make_splits(
    arguments: DataArguments,
    seed: int,
    label_column: LabelColumn | None = None,
    *,
    validation_fraction: float = 0.2,
    in_memory: Mapping[str, Source] | None = None,
) -> SemiSupervisedSplits:
    """Loads the tables in `arguments` and splits them; all tables share the label names of the first one.

    What was assumed about the tables comes first among the manifest's warnings. Of a source with several splits, each
    table is the split of its own name. Only the first table must have the group and the id column: the others often
    have another source.

    Args:
        arguments (`DataArguments`): Tables and their columns.
        seed (`int`): Random seed of the splits; see `few_label_splits`.
        label_column (`LabelColumn`, *optional*): Layout of the labels in their column. Default: one class per row.
        validation_fraction (`float`, defaults to `0.2`): Share of the labels that is held out as `validation`.
        in_memory (`Mapping[str, Source]`, *optional*): Tables that are no paths, by the name of their option.

    Raises:
        DataError: if a table, a column or a label cannot be used.
    """
    options = TableOptions(arguments.delimiter, arguments.encoding, arguments.decimal, arguments.sheet)
    label_options = LabelOptions(
        missing_list(arguments.missing_labels), arguments.keep_label_variants, arguments.decimal
    )
    notices: list[str] = []

    def load(name: str, names: list[str] | None) -> Dataset | None:
        path = (in_memory or {}).get(name, getattr(arguments, name))
        if path is None:
            return None
        columns = {column: getattr(arguments, column) for column in COLUMNS}
        if name == "unlabeled":
            columns["label_column"] = None
        if name in ("train", "unlabeled"):
            columns |= {f"{VIEW_COLUMN}{column}": column for column in arguments.view_column_names()}
        dataset, told = read_table(
            path,
            columns,
            label_names=names,
            split=name,
            optional=() if name == "train" else ("group_column", "id_column"),
            options=options,
            label_options=label_options,
        )
        notices.extend(told)
        return dataset

    table = load("train", None if arguments.class_names is None else _given_names(arguments.class_names))
    assert table is not None
    names = table.features["label"].names
    return few_label_splits(
        table,
        labels_per_class=arguments.labels_per_class,
        test=load("test", names),
        validation=load("validation", names),
        unlabeled=load("unlabeled", names),
        max_unlabeled=arguments.max_unlabeled,
        max_test=arguments.max_test,
        validation_fraction=validation_fraction,
        seed=seed,
        label_column=label_column,
        notices=notices,
        view_columns=arguments.view_column_names(),
    )


def _given_names(given: str | list[str]) -> list[str]:
    """Returns a list of label names, also from a JSON file, or from words with commas between them."""
    if isinstance(given, list):
        return [str(name) for name in given]
    if Path(given).suffix != ".json":
        return [name.strip() for name in given.split(",")]
    names = read_label_names(Path(given))
    if names is None:
        raise DataError(f"expected a JSON list of different label names in '{given}', found none: check the file.")
    return names
