"""Tables in memory, as Python's own tools pass them; they go through the same rules as files.

The label -1 means unlabeled in a `Dataset`, as everywhere in `datasets`; in a frame or a list it is what it is in a
file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from hfssl.config.values import plain_value
from hfssl.data.formats.base import ABSENT, TableFile, counted
from hfssl.data.sources import FALLBACKS, Source, dataset_source
from hfssl.data.tables import SPLIT_NAMES
from hfssl.errors import DataError

if TYPE_CHECKING:
    from pandas import DataFrame

    TableLike: TypeAlias = (
        str | os.PathLike[str] | Dataset | DatasetDict | DataFrame | Mapping[str, Sequence[Any]] | Sequence[Any]
    )

__all__ = ["fingerprint", "is_in_memory", "memory_source"]

KINDS = (
    "a path, the id of a data set on the Hub, a Dataset, a DatasetDict, a pandas DataFrame, a dict of columns, or a "
    "list of dicts, of texts or of (text, label) pairs"
)


class MemoryTable(TableFile):
    """Is a table whose columns are lists.

    Args:
        name (`str`): Name of the table in messages.
        columns (`Mapping[str, Sequence[Any]]`): Column name -> its N values.
    """

    def __init__(self, name: str, columns: Mapping[str, Sequence[Any]]):
        super().__init__(Path(name), list(columns))
        self.values = dict(columns)

    def records(self, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yields the number of each row, from 1, and its values."""
        size = len(next(iter(self.values.values()), ()))
        cells = [map(_plain, self.values[column]) if column in self.values else repeat(ABSENT) for column in columns]
        for number in range(1, size + 1):
            yield number, tuple(next(cell) for cell in cells)


def _plain(value: Any) -> Any:
    return value if value is ABSENT or isinstance(value, list | dict | set) else plain_value(value)


def is_in_memory(table: Any) -> bool:
    """Returns whether a table is data and not a path or an id.

    Args:
        table (`Any`): What the user gave.
    """
    return table is not None and not isinstance(table, str | os.PathLike)


def memory_source(table: Any, wanted: Sequence[str], *, split: str = "train") -> Source:
    """Returns data in memory as the source of a table.

    Args:
        table (`Any`): A `Dataset`, a `DatasetDict` (of which the split is read), a pandas `DataFrame`, a dict of
            columns, or a list of dicts, of texts, or of tuples with the wanted columns in order.
        wanted (`Sequence[str]`): Columns that will be read: the text, the second text of pairs if any, the label, ...
        split (`str`, defaults to `"train"`): Name of the table's option, which also names the split.

    Raises:
        DataError: for data of another kind.
    """
    if isinstance(table, Source):
        return table
    name = f"{split} ({type(table).__name__})"
    if isinstance(table, IterableDataset | IterableDatasetDict):
        raise DataError(
            f"expected {split} to have a length, got a stream ({type(table).__name__}): collect the rows that you "
            "need with Dataset.from_list(list(stream.take(10_000)))."
        )
    if isinstance(table, Dataset | DatasetDict):
        names = (*SPLIT_NAMES.get(split, (split,)), *FALLBACKS.get(split, ()))
        return dataset_source(table, name, names, False, split)
    columns = _columns(table, wanted)
    if columns is None:
        raise DataError(f"expected {split} to be {KINDS}, got {_described(table)}.")
    sizes = {column: len(values) for column, values in columns.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"'{column}' has {size:,}" for column, size in sizes.items())
        raise DataError(f"expected columns of one length in {name}, but {told}.")
    if not any(sizes.values()):
        raise DataError(f"expected rows in {name}, got none: check how it was made.")
    return Source(name, [MemoryTable(name, columns)])


def _described(table: Any) -> str:
    if isinstance(table, Sequence) and len(table):
        return f"a {type(table).__name__} of {type(table[0]).__name__}"
    return f"a {type(table).__name__}"


def _columns(table: Any, wanted: Sequence[str]) -> dict[str, Sequence[Any]] | None:
    """Returns the columns of a frame, a dict or a list of rows; `None` for anything else."""
    if type(table).__module__.split(".")[0] in ("pandas", "polars") and hasattr(table, "columns"):
        return {str(column): _listed(table[column]) for column in table.columns}
    if isinstance(table, Mapping):
        values = {str(column): _listed(cells) for column, cells in table.items()}
        return values if all(cells is not None for cells in values.values()) else None
    rows = _listed(table)
    if rows is None:
        return None
    if all(isinstance(row, Mapping) for row in rows) and rows:
        names = dict.fromkeys(str(name) for row in rows for name in row)
        return {name: [row.get(name, ABSENT) for row in rows] for name in names}
    if all(isinstance(row, tuple | list) and len(row) == len(rows[0]) <= len(wanted) for row in rows) and rows:
        return {name: [row[i] for row in rows] for i, name in enumerate(wanted[: len(rows[0])])}
    if all(not isinstance(row, Mapping | tuple | list | set) for row in rows):
        return {wanted[0]: rows}
    return None


def _listed(values: Any) -> Any:
    """Returns a column as a list; `None` for text or what has no rows."""
    if isinstance(values, str | bytes):
        return None
    if hasattr(values, "tolist"):  # numpy arrays, pandas series
        values = values.tolist()
    elif hasattr(values, "to_list"):  # polars
        values = values.to_list()
    return list(values) if isinstance(values, Sequence) else None


def fingerprint(source: Source, wanted: Sequence[str]) -> str:
    """Returns words that stand for data in memory in the settings of a run: kind, number of rows, hash.

    The hash is that of the values of the wanted columns, so that a resumed run notices other rows.

    Args:
        source (`Source`): The data.
        wanted (`Sequence[str]`): Columns that are read.
    """
    digest, rows = blake2b(digest_size=8), 0
    for table in source.files:
        columns = [column for column in wanted if column in (table.columns or ())]
        names = {column: table.class_names.get(column) for column in columns}
        digest.update(repr((columns, names)).encode("utf-8", "replace"))
        for _, values in table.records(columns):
            digest.update(repr(values).encode("utf-8", "replace"))
            rows += 1
    kind = source.name.rpartition("(")[2].rstrip(")")
    return f"{kind} of {counted(rows, 'row')}, {digest.hexdigest()}"
