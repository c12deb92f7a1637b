"""Opens table files of every kind, with errors that name the line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from hfssl.data.formats.arrow_files import ArrowFile, ParquetTable, parquet_schema
from hfssl.data.formats.base import COMPRESSED_SUFFIXES, Row, TableFile, TableOptions, open_binary
from hfssl.data.formats.delimited import SUFFIX_DELIMITERS, DelimitedFile
from hfssl.data.formats.json_files import JsonFile
from hfssl.data.formats.workbooks import Workbook
from hfssl.errors import DataError, near_matches

__all__ = [
    "LABEL_NAMES_FILE",
    "SPLIT_NAMES",
    "TABLE_SUFFIXES",
    "TableOptions",
    "is_table",
    "open_table",
    "parquet_schema",
    "read_label_names",
    "read_rows",
    "table_files",
    "table_suffix",
]

DELIMITED = tuple(SUFFIX_DELIMITERS)
JSON = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")
ARROW = (".feather", ".arrow", ".ipc")
WORKBOOK = (".xlsx", ".xlsm")
TABLE_SUFFIXES = (*DELIMITED, *JSON, *PARQUET, *ARROW, *WORKBOOK)
LABEL_NAMES_FILE = "labels.json"  # file next to a table with the names of its integer labels, in order
# Beginnings of files that are another kind than their suffix says.
OTHER_KINDS = {
    b"PK\x03\x04": ("a workbook or a zip archive", ".xlsx, or unpack it"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", ".xlsx, after saving it as one"),
    b"PAR1": ("a Parquet file", ".parquet"),
    b"ARROW1": ("an Arrow or Feather file", ".feather"),
    b"FEA1": ("an old Feather file", ".parquet, after writing it as one"),
}
# Names that people give to a split. A file or split named one of them belongs to it.
SPLIT_NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
    "unlabeled": ("unlabeled", "unlabelled", "unsupervised", "pool"),
}


def table_suffix(path: Path) -> str:
    """Returns the suffix that tells the kind of a table, lower case: `.csv` for `reviews.CSV.gz`."""
    name = Path(path.stem) if path.suffix.lower() in COMPRESSED_SUFFIXES else path
    return name.suffix.lower()


def is_table(path: Path) -> bool:
    """Returns whether a name is that of a table file."""
    return table_suffix(path) in TABLE_SUFFIXES and path.name != LABEL_NAMES_FILE


def open_table(
    path: str | Path,
    wanted: Sequence[str] | None = None,
    options: TableOptions | None = None,
    splits: Sequence[str] = (),
) -> TableFile:
    """Opens one table file.

    Args:
        path (`str | Path`): File; its suffix, before one of compression, defines its kind.
        wanted (`Sequence[str]`, *optional*): Columns that will be read. They help to detect the format, and only they
            must be sound. Default: all.
        options (`TableOptions`, *optional*): What the user says about the format.
        splits (`Sequence[str]`, defaults to `()`): Names of a sheet that is preferred in a workbook.

    Raises:
        DataError: if the file is missing, unreadable, empty, of an unknown kind, or malformed.
    """
    path, options = Path(path), options or TableOptions()
    suffix = table_suffix(path)
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"expected a table at '{path}', but there is no such file.{near_matches(path.name, siblings)}")
    if suffix not in TABLE_SUFFIXES:
        raise DataError(
            f"expected a file ending in {', '.join(TABLE_SUFFIXES)} (also with {', '.join(COMPRESSED_SUFFIXES)} behind"
            f" it), got '{path}': convert it to one."
        )
    try:
        with open_binary(path) as file:
            start = file.read(8)
        if not start:
            raise DataError(f"expected rows in '{path}', got an empty file: check how it was written.")
        if suffix in (*DELIMITED, *JSON):
            for magic, (kind, remedy) in OTHER_KINDS.items():
                if start.startswith(magic):
                    raise DataError(f"expected text in '{path}', got {kind}: rename it to {remedy}.")
        if suffix in DELIMITED:
            return DelimitedFile(path, suffix, wanted, options)
        if suffix in JSON:
            return JsonFile(path, wanted, options)
        if suffix in PARQUET:
            return ParquetTable(path, wanted)
        return ArrowFile(path, wanted) if suffix in ARROW else Workbook(path, wanted, options, splits)
    except (OSError, EOFError) as error:
        raise unreadable(path, error) from error


def _tables_in(folder: Path) -> list[Path]:
    """Returns the table files of a folder; notes in JSON or text next to other tables are none of them."""
    files = sorted(p for p in folder.glob("*") if p.is_file() and is_table(p) and not p.name.startswith((".", "~")))
    tables = [p for p in files if table_suffix(p) not in (".json", ".txt")]
    return tables or files


def unreadable(path: Path, error: Exception) -> DataError:
    """Returns the error for a file that the system, or a decompressor, cannot read."""
    return DataError(f"expected a readable file at '{path}', got {error}: check permissions, disk and download.")


def read_rows(
    path: str | Path, columns: Sequence[str] | None = None, options: TableOptions | None = None
) -> Iterator[tuple[int, Row]]:
    """Streams the rows of one table file.

    Args:
        path (`str | Path`): Table file; its suffix defines its kind.
        columns (`Sequence[str]`, *optional*): Columns to read, if the file has all of them. Default: all.
        options (`TableOptions`, *optional*): What the user says about the format; the rest is detected.

    Yields:
        `(place, row)`: the line of the file on which the row starts (Parquet, Arrow, workbooks and JSON documents: the
        row's number, from 1), and the row as a dict by column name. All values of delimited files are `str`.

    Raises:
        DataError: if the file is missing, unreadable, empty, of an unknown kind, or malformed.

    Example:
        >>> from hfssl.data import read_rows
        >>> place, row = next(read_rows(table))
        >>> place, sorted(row)
        (2, ['label', 'text'])
    """
    table = open_table(path, columns, options)
    try:
        if columns is None or table.columns is None or not set(columns) <= set(table.columns):
            yield from table.rows()
        else:
            for place, values in table.records(columns):
                yield place, dict(zip(columns, values, strict=True))
    except (OSError, EOFError) as error:
        raise unreadable(Path(path), error) from error


def read_label_names(path: Path) -> list[str] | None:
    """Reads label names from a JSON file, in order; returns `None` without a file or without a list of names."""
    try:
        names = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None
    fits = isinstance(names, list) and names and all(isinstance(name, str) and name.strip() for name in names)
    return names if fits and len(set(names)) == len(names) else None


def table_files(folder: Path, splits: Sequence[str], explicit: bool = False) -> tuple[list[Path], str | None]:
    """Returns the table files of a split in `folder` (or its `data/` subfolder), sorted by name, and their split.

    Files with the name of a split (`train.csv`, `train-00000-of-00002.parquet`) belong to that split; a folder without
    such names is one table in pieces, whose split is `None`.

    Args:
        folder (`Path`): The folder.
        splits (`Sequence[str]`): Names of the split; the first that the folder has is read.
        explicit (`bool`, defaults to `False`): Whether the user named the split, so that nothing else will do.

    Raises:
        DataError: if the folder has no table files, or has named splits but not this one.
    """
    for place in (folder, folder / "data"):
        if files := _tables_in(place):
            break
    else:
        kinds = ", ".join(TABLE_SUFFIXES)
        raise DataError(f"expected {kinds} files or a saved data set in the folder '{folder}', found neither.")
    named = {p: p.name.split("-")[0].split(".")[0].lower() for p in files}
    known = {name for names in SPLIT_NAMES.values() for name in names} | {split.lower() for split in splits}
    if not explicit and not any(name in known for name in named.values()):
        return files, None
    for split in splits:
        if wanted := [p for p in files if named[p] == split.lower()]:
            return wanted, split
    present = {name: [p for p in files if named[p] == name] for name in named.values() if name in known}
    if not explicit and len(present) == 1:  # the only split there is
        ((split, only),) = present.items()
        return only, split
    found = ", ".join(p.name for p in files)
    raise DataError(
        f"expected a file for the split '{splits[0]}' in '{folder}', found {found}: name the file itself, or its "
        f"split as '{folder}:SPLIT'."
    )
