"""Reads sheets of Excel workbooks (.xlsx, .xlsm), by openpyxl.

openpyxl keeps what cells hold: whole numbers stay whole and errors (`#N/A`) stay visible. python-calamine is faster,
but makes every number a float and every error an empty cell.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hfssl.data.formats.base import TableFile, TableOptions, listed, open_binary
from hfssl.errors import DataError, near_matches

__all__ = ["Workbook"]


class Workbook(TableFile):
    """Is one sheet of a workbook.

    The sheet is the one that the user named, or the one named like the split that is read, or else the first one with
    the columns that are asked for. The first row that is not empty is the header.
    """

    def __init__(self, path: Path, wanted: Sequence[str] | None, options: TableOptions, splits: Sequence[str] = ()):
        super().__init__(path)
        self.book = self._open()
        headers = dict(self._headers())
        sheet = self._sheet(headers, wanted, options.sheet, splits)
        self.sheet = sheet
        self.first_row, self.columns = headers[sheet]
        if len(headers) > 1 and options.sheet is None:
            others = [name for name in headers if name != sheet]
            self.notices.append(
                f"'{path.name}' is read from its sheet '{sheet}' (the others are {listed(others, 6)}; --sheet "
                "names one)."
            )
        self.check_repeated(wanted)

    def records(self, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yields the row's number in the sheet, from 1, and its values."""
        names = self.columns or []
        places = [names.index(column) for column in columns]
        width = max(places, default=-1) + 1
        for number, row in self._rows(self.sheet):
            if number > self.first_row and any(value is not None for value in row):
                cells = row + (None,) * (width - len(row))  # rows end with their last filled cell
                yield number, tuple([_value(cells[place]) for place in places])

    def where(self) -> str:
        """Returns the words before a place in messages."""
        return f"'{self.path}', sheet '{self.sheet}', row"

    def _sheet(
        self,
        headers: dict[str, tuple[int, list[str]]],
        wanted: Sequence[str] | None,
        given: str | None,
        splits: Sequence[str],
    ) -> str:
        if given is not None:
            if given not in headers:
                raise DataError(
                    f"expected a sheet '{given}' with rows in '{self.path}', found {listed(list(headers))}."
                    f"{near_matches(given, list(headers))} Name one of these with --sheet (sheet=)."
                )
            return given
        if not headers:
            raise DataError(f"expected rows in '{self.path}', got empty sheets: check how it was written.")
        for split in splits:
            for name in headers:
                if name.strip().lower() == split.lower():
                    return name
        fits = [name for name, (_, header) in headers.items() if set(wanted or ()) <= set(header)]
        return (fits or list(headers))[0]

    def _headers(self) -> Iterator[tuple[str, tuple[int, list[str]]]]:
        """Yields each sheet with rows: number and names of its header."""
        for name in self.book.sheetnames:
            for number, row in self._rows(name):
                if any(value is not None for value in row):
                    names = ["" if value is None else str(value).strip() for value in row]
                    blank = names.count("") > 1
                    yield name, (number, [n or (f"Unnamed: {i}" if blank else "") for i, n in enumerate(names)])
                    break

    def _rows(self, sheet: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
        try:
            worksheet = self.book[sheet]
            if not hasattr(worksheet, "iter_rows"):  # a sheet that is a chart
                return
            worksheet.reset_dimensions()  # some programs write wrong ones, by which rows would be lost
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about styles and validations that openpyxl does not keep
                yield from enumerate(worksheet.iter_rows(values_only=True), start=1)
        except (KeyError, ValueError, zipfile.BadZipFile, SyntaxError) as error:
            raise self._unreadable(error) from error

    def _open(self) -> Any:
        from openpyxl import load_workbook  # half a second that other tables need not wait for
        from openpyxl.utils.exceptions import InvalidFileException

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with open_binary(self.path) as file:
                    return load_workbook(io.BytesIO(file.read()), read_only=True, data_only=True)
        except (InvalidFileException, KeyError, ValueError, zipfile.BadZipFile, SyntaxError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(
            f"expected an Excel workbook at '{self.path}', but it cannot be read as one "
            f"({' '.join(str(error).split())}): save it again as .xlsx or .csv, without a password."
        )


def _value(value: Any) -> Any:
    if isinstance(value, str) and "_x" in value:
        from openpyxl.utils.escape import unescape

        return unescape(value)  # _x000D_ is how workbooks write a carriage return
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)  # a workbook knows only one kind of number
    return value
