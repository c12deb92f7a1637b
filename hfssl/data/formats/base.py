"""Defines `TableFile`, an open table of any kind, and `TableOptions`, what a user can say about its format."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from hfssl.errors import ConfigurationError, DataError

__all__ = ["ABSENT", "Row", "TableFile", "TableOptions", "counted", "listed", "open_binary"]

Row = dict[str, Any]
ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "ABSENT"})()  # a JSON object lacks the key

# First bytes of compressed files. The content decides, not the name: people rename files.
COMPRESSIONS: dict[bytes, Callable[..., IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,  # pyright: ignore[reportAssignmentType]
    b"BZh": bz2.open,  # pyright: ignore[reportAssignmentType]
    b"\xfd7zXZ\x00": lzma.open,  # pyright: ignore[reportAssignmentType]
}
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz")
# Spelled delimiters, because a tab is hard to type in a shell.
DELIMITER_WORDS = {
    "comma": ",",
    "semicolon": ";",
    "tab": "\t",
    "\\t": "\t",
    "pipe": "|",
    "bar": "|",
    "space": " ",
    "colon": ":",
}


@dataclass(frozen=True)
class TableOptions:
    """Holds what a user says about the format of table files; `None` means that it is detected.

    Args:
        delimiter (`str`, *optional*): Character between the columns of a delimited file, or its name: `comma`,
            `semicolon`, `tab`, `pipe`, `space`, `colon`.
        encoding (`str`, *optional*): Encoding of text files, such as `"cp1252"` or `"utf-16"`.
        decimal (`"." | ","`, *optional*): Decimal mark of numbers in text files.
        sheet (`str`, *optional*): Sheet of a workbook.

    Raises:
        ConfigurationError: for a delimiter of several characters or an unknown encoding.
    """

    delimiter: str | None = None
    encoding: str | None = None
    decimal: Literal[".", ","] | None = None
    sheet: str | None = None

    def __post_init__(self):
        if problems := self.problems():
            raise ConfigurationError(problems)

    def problems(self) -> list[str]:
        """Returns one sentence for each value that cannot be used."""
        found = []
        if self.delimiter is not None and (len(self.separator) != 1 or self.separator in '"\r\n\0'):
            found.append(
                f"delimiter must be one character or one of {', '.join(DELIMITER_WORDS)}, got {self.delimiter!r}."
            )
        if self.encoding is not None and not _is_text_encoding(self.encoding):
            found.append(f"encoding must be one that Python knows, such as utf-8 or cp1252, got '{self.encoding}'.")
        if self.decimal not in (None, ".", ","):
            found.append(f"decimal must be '.' or ',', got '{self.decimal}'.")
        return found

    @property
    def separator(self) -> str:
        """Returns the delimiter as a character; empty where it is to be detected."""
        return DELIMITER_WORDS.get((self.delimiter or "").lower(), self.delimiter or "")


@dataclass
class TableFile(ABC):
    """Is an open table: its columns, and its rows as a stream.

    Args:
        path (`Path`): The file (or folder).
        columns (`list[str] | None`): Names of its columns; `None` if only its rows tell them (JSON lines).
        unit (`str`): Name of the places that `records` counts: `"line"` or `"row"`.
        class_names (`dict[str, list[str]]`): Names of the classes of a column that defines them.
        notices (`list[str]`): What was assumed about the file, a sentence each.
    """

    path: Path
    columns: list[str] | None = None
    unit: str = "row"
    class_names: dict[str, list[str]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    @abstractmethod
    def records(self, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yields the place of each row and its values in `columns`, `ABSENT` where a row has no such key."""

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yields the place of each row, and the row as a dict of all its columns."""
        columns = self.columns or []
        for place, values in self.records(columns):
            yield place, dict(zip(columns, values, strict=True))

    def where(self) -> str:
        """Returns the words before a place in messages."""
        return f"'{self.path}', {self.unit}"

    def check_repeated(self, wanted: Sequence[str] | None) -> None:
        """Refuses a repeated column that is wanted (all of them, if `wanted` is `None`), and tells of another one."""
        twice = sorted(name for name, count in Counter(self.columns).items() if count > 1)
        for name in twice:
            if wanted is None or name in wanted:
                raise DataError(
                    f"expected each column of '{self.path}' once, got '{name}' more than once: rename one of them."
                )
        if twice:
            self.notices.append(f"'{self.path.name}' has the column '{twice[0]}' more than once; it is not used.")


def open_binary(path: Path) -> IO[bytes]:
    """Opens a file for reading; a file compressed by gzip, bzip2 or xz is decompressed."""
    file = open(path, "rb")
    try:
        start = file.read(6)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    for magic, opener in COMPRESSIONS.items():
        if start.startswith(magic):
            file.close()
            return opener(path, "rb")
    return file


def in_memory(path: Path) -> io.BytesIO | str:
    """Returns what Arrow and openpyxl read: the path, or the content of a compressed file."""
    with open_binary(path) as file:
        return os.fspath(path) if isinstance(file, io.BufferedReader) else io.BytesIO(file.read())


def _is_text_encoding(name: str) -> bool:
    try:
        "a".encode(codecs.lookup(name).name)
    except (LookupError, UnicodeError, TypeError, ValueError):
        return False
    return True


def counted(count: int, noun: str) -> str:
    """Returns "1 row", "2 rows"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(names: Sequence[Any], limit: int = 12) -> str:
    """Returns names in quotes with commas between them, the first `limit` only."""
    shown = [repr(name) for name in names]
    return ", ".join(shown[:limit]) + (f" and {len(shown) - limit} more" if len(shown) > limit else "")
