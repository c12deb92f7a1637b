"""Writes table files, a few rows at a time: the counterpart of `hfssl.data.tables`."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from hfssl.data.tables import parquet_schema
from hfssl.errors import ConfigurationError, DataError

__all__ = ["TableWriter", "table_writer"]

Row = dict[str, Any]


class TableWriter(Protocol):
    """Writes rows to a table file; a context manager that closes the file at the end."""

    def __enter__(self) -> TableWriter: ...

    def __exit__(self, *error: object) -> None: ...

    def write(self, rows: list[Row]) -> None:
        """Appends rows with the columns of `table_writer`, or (JSON lines) some of them."""
        ...


def table_writer(
    path: Path, suffix: str, source: Path, columns: Sequence[str], added: Mapping[str, pa.DataType]
) -> TableWriter:
    """Returns a writer to `path` for the file type `suffix`.

    Args:
        path (`Path`): File to write, with any name.
        suffix (`str`): `.csv`, `.tsv`, `.jsonl`, `.ndjson` or `.parquet`.
        source (`Path`): Source table of the rows; a Parquet target gets the column types of a Parquet source.
        columns (`Sequence[str]`): Columns of the source in order.
        added (`Mapping[str, pa.DataType]`): Additional columns of the rows, with their types.

    Raises:
        ConfigurationError: if `suffix` is none of these.
    """
    kind = suffix.lower()
    if kind in (".csv", ".tsv"):
        return _DelimitedWriter(path, [*columns, *added], "," if kind == ".csv" else "\t")
    if kind in (".jsonl", ".ndjson"):
        return _JsonLinesWriter(path)
    if kind == ".parquet":
        kept = parquet_schema(source) if source.suffix.lower() == ".parquet" else None
        return _ParquetWriter(path, kept, columns, added)
    raise ConfigurationError(
        f"Expected an output file ending in .csv, .tsv, .jsonl, .ndjson or .parquet, got '{suffix}'; rename it."
    )


class _TextWriter:
    def __init__(self, path: Path):
        self.file = open(path, "w", encoding="utf-8", newline="")

    def __enter__(self) -> _TextWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


class _DelimitedWriter(_TextWriter):
    def __init__(self, path: Path, columns: Sequence[str], delimiter: str):
        super().__init__(path)
        self.writer = csv.DictWriter(self.file, columns, delimiter=delimiter, lineterminator="\n")
        self.writer.writeheader()

    def write(self, rows: list[Row]) -> None:
        self.writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


class _JsonLinesWriter(_TextWriter):
    def write(self, rows: list[Row]) -> None:
        self.file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)


def _cell(value: Any) -> Any:
    """Converts lists and objects, which CSV and TSV do not support, to JSON."""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value


class _ParquetWriter:
    """Writes Parquet with the types of a Parquet source, or else with the types of the first rows."""

    def __init__(self, path: Path, kept: pa.Schema | None, columns: Sequence[str], added: Mapping[str, pa.DataType]):
        self.path, self.kept, self.columns, self.added = path, kept, columns, pa.schema(list(added.items()))
        self.writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _ParquetWriter:
        return self

    def __exit__(self, *error: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def write(self, rows: list[Row]) -> None:
        """Adds rows to the file."""
        try:
            if self.writer is None:
                kept = self._guess(rows) if self.kept is None else self.kept
                self.schema = pa.schema([*kept, *self.added])  # without metadata, which describes the old columns
                self.writer = pq.ParquetWriter(self.path, self.schema)
            self.writer.write_table(pa.Table.from_pylist(rows, schema=self.schema))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                f"Expected values of one kind in each column, as Parquet needs, got a mixture ({error}); choose an "
                "output file that ends in .jsonl."
            ) from error

    def _guess(self, rows: list[Row]) -> pa.Schema:
        types = {name: pa.array([row.get(name) for row in rows]).type for name in self.columns}
        return pa.schema([(name, pa.string() if pa.types.is_null(kind) else kind) for name, kind in types.items()])
