"""Streams the rows of a table file, with errors that name the line.

CSV and TSV are parsed strictly (RFC 4180: a field with the delimiter, a quote or a line break is in double quotes). A
lenient parser silently loses thousands of rows after one stray quote.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hfssl.errors import DataError, near_matches

__all__ = ["LABEL_NAMES_FILE", "TABLE_SUFFIXES", "parquet_schema", "read_label_names", "read_rows", "table_files"]

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
TABLE_SUFFIXES = (*DELIMITERS, *JSON_LINES, ".parquet")
DELIMITER_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
LABEL_NAMES_FILE = "labels.json"  # file next to a table with the names of its integer labels, in order
PARQUET_BATCH = 1024  # rows held in memory at once

Row = dict[str, Any]


def read_rows(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Row]]:
    """Streams the rows of one CSV, TSV, JSON-lines or Parquet file.

    Args:
        path (`str | Path`): Table file; its suffix defines its kind.
        columns (`Sequence[str]`, *optional*): For Parquet, the columns to read, if the file has all of them.

    Yields:
        `(line, row)`: the line of the file on which the row starts (Parquet: the row's number, from 1), and the row as
        a dict by column name. All CSV and TSV values are `str`.

    Raises:
        DataError: if the file is missing, unreadable, empty, of an unknown kind, not UTF-8, or malformed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"expected a table at '{path}', but there is no such file.{near_matches(path.name, siblings)}")
    if suffix not in TABLE_SUFFIXES:
        raise DataError(f"expected a file ending in {', '.join(TABLE_SUFFIXES)}, got '{path}': convert it to one.")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"expected rows in '{path}', got an empty file: check how it was written.")
        if suffix in DELIMITERS:
            yield from _delimited_rows(path, DELIMITERS[suffix])
        elif suffix in JSON_LINES:
            yield from _json_rows(path)
        else:
            yield from _parquet_rows(path, columns)
    except OSError as error:
        raise DataError(f"expected a readable file at '{path}', got {error}: check permissions and disk.") from error


def read_label_names(path: Path) -> list[str] | None:
    """Reads label names from a JSON file, in order; returns `None` without a file or without a list of names."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    fits = isinstance(names, list) and names and all(isinstance(name, str) and name.strip() for name in names)
    return names if fits and len(set(names)) == len(names) else None


def table_files(folder: Path, split: str) -> list[Path]:
    """Returns the table files of `split` in `folder` (or its `data/` subfolder), sorted by name.

    Files with the name of a split (`train.csv`, `train-00000-of-00002.parquet`) belong to that split; a folder without
    such names is one table in pieces.

    Raises:
        DataError: if the folder has no table files, or has named splits but not this one.
    """
    for place in (folder, folder / "data"):
        files = sorted(p for p in place.glob("*") if p.is_file() and p.suffix.lower() in TABLE_SUFFIXES)
        if files:
            break
    else:
        kinds = ", ".join(TABLE_SUFFIXES)
        raise DataError(f"expected {kinds} files or a saved data set in the folder '{folder}', found neither.")
    named = {p: p.stem.split("-")[0].split(".")[0].lower() for p in files}
    known = {"train", "validation", "valid", "dev", "test", "unlabeled", split.lower()}
    if not any(name in known for name in named.values()):
        return files
    wanted = [p for p in files if named[p] == split.lower()]
    if not wanted:
        found = ", ".join(p.name for p in files)
        raise DataError(f"expected a file for the split '{split}' in '{folder}', found {found}: name the file itself.")
    return wanted


def parquet_schema(path: Path) -> pa.Schema:
    """Returns the Arrow schema of a Parquet file.

    Raises:
        DataError: if the file is not Parquet.
    """
    try:
        return pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _not_parquet(path, error) from error


def _not_parquet(path: Path, error: pa.ArrowInvalid | OSError) -> DataError:
    return DataError(f"expected a Parquet file at '{path}', but it cannot be read as one ({error}): write it again.")


def _decoded_lines(path: Path) -> Iterator[str]:
    """Decodes line by line, so that errors name the line of a broken byte and the whole file is never in memory."""
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise DataError(f"expected UTF-8 text in '{path}', got UTF-16 (line 1): save the file again as UTF-8.")
            try:
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"expected UTF-8 text in '{path}', got the byte 0x{raw[error.start]:02x} on line {number}: "
                    "save the file again as UTF-8."
                ) from error


def _delimited_rows(path: Path, delimiter: str) -> Iterator[tuple[int, Row]]:
    # The limit is global to the process and has no use here. It is only raised, because restoring it would break
    # another reader in the middle of a file. A C long holds 2**31 - 1 on every platform.
    csv.field_size_limit(max(csv.field_size_limit(), min(sys.maxsize, 2**31 - 1)))
    reader = csv.reader(_decoded_lines(path), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    start = 1
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"expected well-formed quotes in '{path}', got a broken row that starts on line {start} ({error}): "
                "put texts that hold quotes in double quotes and double the quotes inside."
            ) from error
        if fields and header is None:
            header = _checked_header(path, fields, delimiter)
        elif fields:
            if len(fields) != len(header):
                raise DataError(
                    f"expected {_counted(len(header), 'field')} as in the header of '{path}', got {len(fields)} on "
                    f"line {start}: put texts that hold a {DELIMITER_NAMES[delimiter]} in double quotes."
                )
            yield start, dict(zip(header, fields, strict=True))
        start = reader.line_num + 1


def _checked_header(path: Path, fields: list[str], delimiter: str) -> list[str]:
    header = [name.strip() for name in fields]
    if len(header) == 1:
        other = max((d for d in DELIMITER_NAMES if d != delimiter), key=header[0].count)
        if other in header[0]:
            raise DataError(
                f"expected {DELIMITER_NAMES[delimiter]}-separated columns in '{path}', but its header looks "
                f"{DELIMITER_NAMES[other]}-separated ({header[0]!r}): save it as .csv with commas, or .tsv with tabs."
            )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"expected each column of '{path}' once, got '{twice[0]}' more than once: rename one of them.")
    return header


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(_decoded_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"expected one JSON object a line in '{path}', got broken JSON on line {number} ({error.msg}): "
                "correct that line."
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"expected one JSON object a line in '{path}', got a {type(row).__name__} on line {number}: "
                'write each row as {"text": ..., "label": ...} on a line of its own.'
            )
        yield number, row


def _parquet_rows(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, Row]]:
    try:
        with pq.ParquetFile(path) as file:
            known = set(file.schema_arrow.names)
            wanted = list(columns) if columns is not None and known.issuperset(columns) else None
            number = 1
            for batch in file.iter_batches(batch_size=PARQUET_BATCH, columns=wanted):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except pa.ArrowInvalid as error:
        raise _not_parquet(path, error) from error


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
