"""Reads JSON: an object a line, a list of objects, or columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hfssl.data.formats.base import ABSENT, Row, TableFile, TableOptions
from hfssl.data.formats.dialects import text_lines
from hfssl.data.formats.encodings import detect_encoding
from hfssl.errors import DataError

__all__ = ["JsonFile"]

LAYOUT = 'write each row as {"text": ..., "label": ...} on a line of its own'


class JsonFile(TableFile):
    """Is a JSON file; its content decides between lines and one document, not its suffix.

    One document is a list of objects, or an object of columns: lists of equal length, objects by row name (as pandas
    writes by default), `{"columns": [...], "data": [[...]]}`, or one list of objects under any key.
    """

    def __init__(self, path: Path, wanted: Sequence[str] | None, options: TableOptions):
        super().__init__(path, unit="line")
        self.wanted = wanted
        encoding = detect_encoding(path, options.encoding)
        self.codec = encoding.codec
        if not encoding.usual:
            told = "; if texts look wrong, name another encoding with --encoding" if encoding.guessed else ""
            self.notices.append(f"'{path.name}' is read as {encoding.codec}{told}.")
        self._repeated: set[str] = set()
        self.document: list[Row] | None = None
        if not self._is_lines():
            self.unit = "row"
            self.document = self._rows_of_document()
            self.columns = list(dict.fromkeys(key for row in self.document for key in row))

    def records(self, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yields the line (or number) of each row and its values; `ABSENT` where the row lacks the key."""
        for place, row in self.rows():
            yield place, tuple([row.get(column, ABSENT) for column in columns])

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yields the line (or number) of each row, and the row as it is."""
        if self.document is not None:
            yield from enumerate(self.document, start=1)
            return
        with text_lines(self.path, self.codec) as lines:
            for number, line in enumerate(lines, start=1):
                if line.isspace():
                    continue
                yield number, self._row(line.lstrip("\ufeff"), number)
        self._tell_repeated()

    def _is_lines(self) -> bool:
        with text_lines(self.path, self.codec) as lines:
            filled = (line.lstrip("\ufeff") for line in lines if line.strip("\ufeff \t\r\n"))
            first, second = next(filled, ""), next(filled, "")
        if not first:
            raise DataError(f"expected rows in '{self.path}', got an empty file: check how it was written.")
        try:
            value = json.loads(first)
        except json.JSONDecodeError:
            # A document over several lines starts with a bracket or an open object; else the first line is broken.
            return not (first.lstrip().startswith("[") or first.strip() == "{" or not first.rstrip().endswith("}"))
        if second:
            return True
        # A single line: one row, or a whole document without line breaks.
        row = isinstance(value, dict) and any(not isinstance(value.get(w, []), dict | list) for w in self.wanted or ())
        return row or (_as_rows(value) is None and not isinstance(value, list)) or _scalars(value)

    def _row(self, text: str, line: int) -> Row:
        row = self._parsed(text, line)
        if not isinstance(row, dict):
            raise DataError(
                f"expected one JSON object a line in '{self.path}', got a {type(row).__name__} on line {line}: "
                f"{LAYOUT}."
            )
        return row

    def _parsed(self, text: str, line: int | None = None) -> Any:
        try:
            value = json.loads(text, object_pairs_hook=self._object)
        except RecursionError as error:
            raise DataError(f"expected flat JSON objects in '{self.path}', got deeply nested ones.") from error
        except json.JSONDecodeError as error:
            what = "JSON" if line is None else "one JSON object a line"
            raise DataError(
                f"expected {what} in '{self.path}', got broken JSON on line {line or error.lineno} ({error.msg}): "
                "correct that line."
            ) from error
        except _Repeated as error:
            at = f" on line {line}" if line else ""
            raise DataError(
                f"expected each key of an object of '{self.path}' once, got '{error}' with different values{at}: "
                "rename one of them."
            ) from error
        return value

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Returns an object; JSON itself would silently keep the last of two values of a key."""
        found = dict(pairs)
        if len(found) != len(pairs):
            for key, value in pairs:
                if value != found[key]:
                    if self.wanted is None or key in self.wanted:
                        raise _Repeated(key)
                    self._repeated.add(key)
        return found

    def _tell_repeated(self) -> None:
        if self._repeated:
            self.notices.append(
                f"'{self.path.name}' has objects with the key '{min(self._repeated)}' more than once; the last counts."
            )
            self._repeated.clear()

    def _rows_of_document(self) -> list[Row]:
        with text_lines(self.path, self.codec) as lines:
            value = self._parsed("".join(lines).lstrip("\ufeff"))
        self._tell_repeated()
        rows = _as_rows(value)
        if rows is None:
            raise DataError(
                f"expected a list of objects or columns of equal length in '{self.path}', got {_shape(value)}: "
                f"{LAYOUT}."
            )
        if not rows:
            raise DataError(f"expected rows in '{self.path}', got none: check how it was written.")
        return rows


class _Repeated(ValueError):
    pass


def _scalars(values: Any) -> bool:
    """Returns whether a value is a list of numbers and strings only: a row without keys, which is refused."""
    return isinstance(values, list) and bool(values) and not any(isinstance(value, dict | list) for value in values)


def _as_rows(value: Any) -> list[Row] | None:
    """Returns the rows of a document; `None` if it is not a table."""
    if isinstance(value, list):
        return value if all(isinstance(row, dict) for row in value) else None
    if not isinstance(value, Mapping) or not value:
        return None
    names, data = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(data, list):  # pandas: orient="split"
        fits = all(isinstance(row, list) and len(row) == len(names) for row in data)
        return [dict(zip(map(str, names), row, strict=True)) for row in data] if fits else None
    lists = {key: part for key, part in value.items() if isinstance(part, list)}
    tables = [part for part in lists.values() if part and all(isinstance(row, dict) for row in part)]
    if len(tables) == 1 and len(lists) <= 2:  # {"data": [...]}, {"schema": {...}, "data": [...]}
        return tables[0]
    if len(lists) == len(value):
        if len({len(part) for part in lists.values()}) > 1:
            return None
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    if all(isinstance(part, dict) for part in value.values()):
        return _by_name(value)
    return None


def _by_name(value: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Returns rows of objects of objects: columns by row name, as pandas writes, or rows by name (its "index")."""
    inner = [set(part) for part in value.values()]
    numbers = all(name.isdecimal() for name in value)
    if numbers and not all(name.isdecimal() for names in inner for name in names):
        return [dict(row) for row in value.values()]
    keys = dict.fromkeys(key for column in value.values() for key in column)
    return [{name: column[key] for name, column in value.items() if key in column} for key in keys]


def _shape(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"an object with the keys {', '.join(map(repr, list(value)[:6]))}"
    return f"a {type(value).__name__}" if not isinstance(value, list) else "a list of other values"
