"""Writes table files, a few rows at a time: the counterpart of `hfssl.data.tables`.

The files are made to be read back by hfssl, pandas, pyarrow, Python's csv module and spreadsheets. All texts of CSV
and TSV are in quotes, since a bare carriage return ends a row for some readers. Half surrogate pairs, which UTF-8
cannot hold, become question marks, and so does NUL in CSV and TSV, at which pandas ends a text; `TableWriter.replaced`
counts such cells.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from hfssl.data.tables import parquet_schema
from hfssl.errors import ConfigurationError, DataError

__all__ = ["TableWriter", "table_writer"]

Row = dict[str, Any]


# First characters that make a cell a formula (OWASP, "CSV injection").
FORMULA = re.compile(r"[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)*([eE][+-]?\d+)?%?")


class TableWriter(Protocol):
    """Writes rows to a table file; a context manager that closes the file at the end.

    Attributes:
        replaced (`int`): Number of cells in which characters were replaced, as the file cannot hold them.
        neutralized (`int`): Number of cells that a spreadsheet would have run as a formula.
    """

    replaced: int
    neutralized: int

    def __enter__(self) -> TableWriter: ...

    def __exit__(self, *error: object) -> None: ...

    def write(self, rows: list[Row]) -> None:
        """Appends rows with the columns of `table_writer`, or (JSON lines) some of them."""
        ...


def table_writer(
    path: Path,
    suffix: str,
    source: Path,
    columns: Sequence[str],
    added: Mapping[str, pa.DataType],
    *,
    spreadsheet: bool = False,
) -> TableWriter:
    """Returns a writer to `path` for the file type `suffix`.

    Args:
        path (`Path`): File to write, with any name.
        suffix (`str`): `.csv`, `.tsv`, `.jsonl`, `.ndjson` or `.parquet`.
        source (`Path`): Source table of the rows; a Parquet target gets the column types of a Parquet source.
        columns (`Sequence[str]`): Columns of the source in order.
        added (`Mapping[str, pa.DataType]`): Additional columns of the rows, with their types.
        spreadsheet (`bool`, defaults to `False`): Whether CSV and TSV are for a spreadsheet: with a byte order mark,
            by which Excel knows UTF-8, and an apostrophe before texts that would be run as formulas.

    Raises:
        ConfigurationError: if `suffix` is none of these, or `spreadsheet` is for another kind than CSV and TSV.
    """
    kind = suffix.lower()
    if spreadsheet and kind not in (".csv", ".tsv"):
        raise ConfigurationError(
            f"Expected an output file ending in .csv or .tsv for a spreadsheet, got '{suffix}': rename it, or leave "
            "--for-spreadsheet (spreadsheet=) out."
        )
    if kind in (".csv", ".tsv"):
        return _DelimitedWriter(path, [*columns, *added], "," if kind == ".csv" else "\t", spreadsheet)
    if kind in (".jsonl", ".ndjson"):
        return _JsonLinesWriter(path)
    if kind == ".parquet":
        kept = parquet_schema(source) if source.suffix.lower() == ".parquet" else None
        return _ParquetWriter(path, kept, columns, added)
    raise ConfigurationError(
        f"Expected an output file ending in .csv, .tsv, .jsonl, .ndjson or .parquet, got '{suffix}'; rename it."
    )


class _TextWriter:
    def __init__(self, path: Path, encoding: str = "utf-8"):
        self.file = open(path, "w", encoding=encoding, newline="")
        self.replaced = self.neutralized = 0

    def __enter__(self) -> _TextWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def _writable(self, row: Row) -> Row:
        """Returns the row without half surrogate pairs, in names of columns, too."""
        cleaned = {_whole(name): _whole(value) for name, value in row.items()}
        self.replaced += sum(new is not old for new, old in zip(cleaned.values(), row.values(), strict=True))
        return cleaned


class _DelimitedWriter(_TextWriter):
    def __init__(self, path: Path, columns: Sequence[str], delimiter: str, spreadsheet: bool):
        super().__init__(path, "utf-8-sig" if spreadsheet else "utf-8")
        self.spreadsheet, columns = spreadsheet, [_whole(name).replace("\0", "?") for name in columns]
        self.writer = csv.DictWriter(
            self.file, columns, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
        )
        self.writer.writeheader()

    def write(self, rows: list[Row]) -> None:
        """Adds rows to the file."""
        for row in map(self._writable, rows):
            self.writer.writerow({name.replace("\0", "?"): self._cell(value) for name, value in row.items()})

    def _cell(self, value: Any) -> Any:
        """Converts lists and objects, which CSV and TSV do not support, to JSON."""
        if isinstance(value, list | dict):
            value = json.dumps(_without_nan(value), ensure_ascii=False, default=str)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if not isinstance(value, str):
            return value
        if "\0" in value:
            value, self.replaced = value.replace("\0", "?"), self.replaced + 1
        if self.spreadsheet and FORMULA.match(value) and not NUMBER.fullmatch(value):
            value, self.neutralized = "'" + value, self.neutralized + 1
        return value


class _JsonLinesWriter(_TextWriter):
    def write(self, rows: list[Row]) -> None:
        """Adds rows to the file; NaN, which is no JSON, becomes null."""
        lines = (json.dumps(_without_nan(self._writable(row)), ensure_ascii=False, default=str) for row in rows)
        self.file.writelines(line + "\n" for line in lines)


def _whole(value: Any) -> Any:
    """Returns the value with a question mark for each half of a surrogate pair; the value itself if it has none."""
    if isinstance(value, str):
        return value if value.isascii() else _unless_equal(value, value.encode("utf-8", "replace").decode("utf-8"))
    if isinstance(value, list):
        return _unless_equal(value, [_whole(item) for item in value])
    if isinstance(value, dict):
        return _unless_equal(value, {_whole(name): _whole(item) for name, item in value.items()})
    return value


def _unless_equal(value: Any, new: Any) -> Any:
    return value if new == value else new


def _without_nan(value: Any) -> Any:
    """Returns the value with None for numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return {name: _without_nan(item) for name, item in value.items()} if isinstance(value, dict) else value


class _ParquetWriter:
    """Writes Parquet with the types of a Parquet source, or else with the types of the first rows."""

    def __init__(self, path: Path, kept: pa.Schema | None, columns: Sequence[str], added: Mapping[str, pa.DataType]):
        self.path, self.kept, self.columns, self.added = path, kept, columns, pa.schema(list(added.items()))
        self.writer: pq.ParquetWriter | None = None
        self.replaced = self.neutralized = 0

    def __enter__(self) -> _ParquetWriter:
        return self

    def __exit__(self, *error: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def write(self, rows: list[Row]) -> None:
        """Adds rows to the file."""
        cleaned = [{name: _whole(value) for name, value in row.items()} for row in rows]
        for row, old in zip(cleaned, rows, strict=True):
            self.replaced += sum(row[name] is not value for name, value in old.items())
        rows = cleaned
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
