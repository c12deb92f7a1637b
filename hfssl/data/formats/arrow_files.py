"""Reads Parquet, Feather and Arrow files, and data sets of `datasets`: only the columns that are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset

from hfssl.data.formats.base import TableFile, in_memory
from hfssl.errors import DataError

__all__ = ["ArrowFile", "DatasetTable", "ParquetTable", "class_names_of", "parquet_schema"]

BATCH = 1024  # rows held in memory at once


def parquet_schema(path: Path) -> pa.Schema:
    """Returns the Arrow schema of a Parquet file.

    Raises:
        DataError: if the file is not Parquet.
    """
    try:
        return pq.read_schema(in_memory(path))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, "Parquet", error) from error


def class_names_of(schema: pa.Schema) -> dict[str, list[str]]:
    """Returns the class names of columns that `datasets` wrote as `ClassLabel`.

    Its metadata are read as JSON: `Features` would refuse a file for the type of a column that nobody asked for.
    """
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        kinds = {name: kind for name, kind in features.items() if isinstance(kind, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    return {
        n: list(map(str, k["names"])) for n, k in kinds.items() if k.get("_type") == "ClassLabel" and k.get("names")
    }


def _unreadable(path: Path, kind: str, error: Exception) -> DataError:
    article = "an" if kind[0] in "AEIOU" else "a"
    reason = " ".join(str(error).split())
    return DataError(
        f"expected {article} {kind} file at '{path}', but it cannot be read as one ({reason}): write it again."
    )


def _tuples(batch: Any, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    if not columns:
        return iter([()] * batch.num_rows)
    return zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


class ParquetTable(TableFile):
    """Is a Parquet file."""

    kind = "Parquet"

    def __init__(self, path: Path, wanted: Sequence[str] | None):
        super().__init__(path)
        schema = parquet_schema(path)
        self.columns = list(schema.names)
        self.class_names = class_names_of(schema)
        self.check_repeated(wanted)

    def records(self, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yields the number of each row, from 1, and its values."""
        number = 1
        try:
            with pq.ParquetFile(in_memory(self.path)) as file:
                for batch in file.iter_batches(batch_size=BATCH, columns=list(columns)):
                    for values in _tuples(batch, columns):
                        yield number, values
                        number += 1
        except pa.ArrowException as error:
            raise _unreadable(self.path, self.kind, error) from error


class ArrowFile(TableFile):
    """Is a Feather file, an Arrow file or an Arrow stream."""

    def __init__(self, path: Path, wanted: Sequence[str] | None):
        super().__init__(path)
        schema = self._open().schema
        self.columns = list(schema.names)
        self.class_names = class_names_of(schema)
        self.check_repeated(wanted)

    def _open(self, columns: Sequence[str] | None = None) -> Any:
        """Returns a reader: of a file, or else of a stream, which `datasets` writes."""
        names = self.columns or []
        fields = None if columns is None else sorted(names.index(column) for column in columns)
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        try:
            try:
                return pa.ipc.open_file(in_memory(self.path), options=options)
            except pa.ArrowInvalid:
                source = in_memory(self.path)
                return pa.ipc.open_stream(pa.OSFile(source) if isinstance(source, str) else source, options=options)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.path, "Arrow or Feather", error) from error

    def records(self, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yields the number of each row, from 1, and its values."""
        reader, number = self._open(columns), 1
        try:
            if isinstance(reader, pa.ipc.RecordBatchFileReader):
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                batches = iter(reader)
            for batch in batches:
                for start in range(0, batch.num_rows, BATCH):
                    for values in _tuples(batch.slice(start, BATCH), columns):
                        yield number, values
                        number += 1
        except pa.ArrowException as error:
            raise _unreadable(self.path, "Arrow or Feather", error) from error


class DatasetTable(TableFile):
    """Is a data set of `datasets`, whatever its format: values are read as they are stored."""

    def __init__(self, dataset: Dataset, name: str):
        super().__init__(Path(name))
        self.name = name
        self.dataset = dataset.with_format(None)  # a format (torch, pandas) would change values and hide columns
        self.columns = list(self.dataset.column_names)
        kinds = self.dataset.features.items()
        self.class_names = {name: list(kind.names) for name, kind in kinds if isinstance(kind, ClassLabel)}

    def records(self, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yields the number of each row, from 1, and its values."""
        rows = self.dataset.select_columns(list(columns)).with_format("arrow")  # decodes no image of another column
        number = 1
        for batch in rows.iter(BATCH):
            for values in _tuples(batch, columns):
                yield number, values
                number += 1

    def where(self) -> str:
        """Returns the words before a place in messages."""
        return f"'{self.name}', row"
