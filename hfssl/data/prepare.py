"""From `DataArguments` to splits: the two data stages that `fit` and the recipes share."""

from __future__ import annotations

from datasets import Dataset

from hfssl.arguments import DataArguments
from hfssl.data.loading import load_table
from hfssl.data.splits import SemiSupervisedSplits, few_label_splits

__all__ = ["make_splits"]


def make_splits(arguments: DataArguments, seed: int) -> SemiSupervisedSplits:
    """Loads the tables that `arguments` name and splits them; all tables share the label names of the first one.

    Only the first table must have the group and the id column: others often come from elsewhere, without them.

    Raises:
        DataError: a table, a column or a label that cannot be used as given.
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

    table = load_table(arguments.train, label_column=arguments.label_column, **columns)
    names = table.features["label"].names
    return few_label_splits(
        table,
        labels_per_class=arguments.labels_per_class,
        test=load(arguments.test, arguments.label_column),
        validation=load(arguments.validation, arguments.label_column),
        unlabeled=load(arguments.unlabeled, None),
        max_unlabeled=arguments.max_unlabeled,
        max_test=arguments.max_test,
        seed=seed,
    )
