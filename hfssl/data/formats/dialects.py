"""Detects how a delimited file separates and quotes its cells.

The header decides: the right delimiter is the one that makes the columns that the user named. `csv.Sniffer` and
clevercsv look at the cells instead, which here are texts full of commas. The whole file is then read once by its
dialect (by Python's strict `csv` parser), so that a broken row is found before anything is done with the others.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

from hfssl.data.formats.base import open_binary
from hfssl.errors import DataError

__all__ = ["DELIMITER_NAMES", "Dialect", "Layout", "detect_layout", "text_lines"]

DELIMITER_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar", " ": "space", ":": "colon"}
USUAL = (",", ";", "\t", "|")
RARE = ("^", "~", "\x1f", "\x01", ":")  # believed only if they make the columns that were asked for
SAMPLE_ROWS = 200
SAMPLE_LINES = 2000
# Spaces between a delimiter and an opening quote. Inside of quotes a quote is doubled, which the end excludes.
_QUOTE_AFTER_SPACE = re.compile(r'(?:^|[,;\t|])[ \u00a0]+"(?!")')
_MARKS = "\ufeff\u200b\u200c\u200d\u2060"  # invisible at the ends of a name


@dataclass(frozen=True)
class Dialect:
    """Holds the format of a delimited file, as Python's `csv` names it."""

    delimiter: str
    quotechar: str = '"'
    escapechar: str | None = None
    skipinitialspace: bool = False
    quoting: int = csv.QUOTE_MINIMAL

    def reader(self, lines: Iterable[str]) -> Any:
        """Returns a strict `csv.reader`: a lenient one silently loses thousands of rows after one stray quote."""
        # The limit is global to the process and has no use here. It is only raised, because restoring it would break
        # another reader in the middle of a file. A C long holds 2**31 - 1 on every platform.
        csv.field_size_limit(max(csv.field_size_limit(), min(sys.maxsize, 2**31 - 1)))
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quotechar,
            escapechar=self.escapechar,
            skipinitialspace=self.skipinitialspace,
            quoting=self.quoting,
            strict=True,
        )

    @property
    def name(self) -> str:
        """Returns the name of the delimiter: "comma"."""
        return DELIMITER_NAMES.get(self.delimiter, repr(self.delimiter))

    def remarks(self) -> list[str]:
        """Returns what is unusual about the quotes."""
        found = []
        if self.quoting == csv.QUOTE_NONE:
            found.append("quotes are part of the cells")
        if self.escapechar is not None:
            found.append("quotes inside cells are marked by a backslash")
        if self.quotechar != '"':
            found.append("cells are quoted by '")
        if self.skipinitialspace:
            found.append("spaces after delimiters are left out")
        return found


@dataclass(frozen=True)
class Layout:
    """Holds how a delimited file is read.

    Args:
        dialect (`Dialect`): Delimiter and quotes.
        header (`list[str]`): Names of the columns.
        skipped_lines (`int`): Lines before the header (`sep=;`, which Excel writes and reads).
        extra (`bool`): Whether lines end with delimiters that the header lacks, with nothing between them.
    """

    dialect: Dialect
    header: list[str]
    skipped_lines: int = 0
    extra: bool = False


class _Broken(Exception):
    """Reports why a dialect does not read the file; `error` is what the user reads if no dialect does."""

    def __init__(self, error: DataError):
        super().__init__(str(error))
        self.error = error


@contextmanager
def text_lines(path: Path, codec: str, skipped_lines: int = 0) -> Iterator[Iterator[str]]:
    """Opens a text file; line breaks of all systems (LF, CR LF, CR) end lines and stay in them."""
    with open_binary(path) as raw, TextIOWrapper(raw, encoding=codec, newline="") as file:
        for _ in range(skipped_lines):
            next(file, None)
        yield file


def detect_layout(
    path: Path, codec: str, usual: str | None, wanted: Sequence[str] | None, given: str | None = None
) -> Layout:
    """Detects delimiter and quotes, and reads the whole file once by them.

    Args:
        path (`Path`): The file.
        codec (`str`): Its encoding.
        usual (`str`, *optional*): Delimiter that the suffix promises.
        wanted (`Sequence[str]`, *optional*): Columns that the user named.
        given (`str`, *optional*): Delimiter that the user named.

    Raises:
        DataError: if no dialect reads the file; the message names the line where the likeliest one fails.
    """
    with text_lines(path, codec) as lines:
        sample = list(islice(lines, SAMPLE_LINES))
    if not sample:
        raise DataError(f"expected rows in '{path}', got an empty file: check how it was written.")
    skipped = 0
    if told := re.fullmatch(r"(?i)sep=(.)\s*", sample[0].lstrip("\ufeff").strip('"\r\n') or " "):
        skipped, sample, given = 1, sample[1:], given or told[1]
    elif sample[0].lower().strip() == "sep=":  # a tab at the end, which strip() took
        skipped, sample, given = 1, sample[1:], given or "\t"
    delimiter = given or _delimiter(sample, usual, wanted or ())
    first: _Broken | None = None
    for dialect in _candidates(delimiter, sample, wanted or ()):
        try:
            return _whole(path, codec, dialect, skipped)
        except _Broken as broken:
            first = first or broken
    assert first is not None
    raise first.error


def _delimiter(sample: list[str], usual: str | None, wanted: Sequence[str]) -> str:
    """Returns the delimiter that makes the columns that were asked for, or else the same number in every row."""
    order = dict.fromkeys([*([usual] if usual else []), *USUAL, *RARE])
    best, best_score = usual or ",", (-1, -1.0, -1)
    for delimiter in order:
        header = _header_of(sample, delimiter)
        found = len(set(wanted).intersection(header))
        if delimiter in RARE and (found < 2 or found < len(set(wanted))):
            continue
        # One column alone is found by any delimiter that does not occur, and a text may hold any of them.
        score = (found, _regular(sample, delimiter), int(len(header) > 1))
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _header_of(sample: list[str], delimiter: str) -> list[str]:
    for quotechar in "\"'":
        try:
            fields = next(filter(None, Dialect(delimiter, quotechar, skipinitialspace=True).reader(sample)), [])
        except csv.Error:
            continue
        names = [_cleaned(name) for name in fields]
        if not any(name.startswith("'") for name in names):
            return names
    return [_cleaned(name) for name in sample[0].split(delimiter)]


def _regular(sample: list[str], delimiter: str) -> float:
    """Returns the share of the first rows that have as many cells as the header."""
    lengths: list[int] = []
    try:
        lengths.extend(map(len, islice(filter(None, Dialect(delimiter).reader(sample)), SAMPLE_ROWS)))
    except csv.Error:
        pass
    if not lengths or lengths[0] == 1:  # no evidence: any delimiter that does not occur makes one column
        return 0.5 * float(len(set(lengths)) == 1)
    return sum(length == lengths[0] for length in lengths) / max(len(lengths), 2)


def _candidates(delimiter: str, sample: list[str], wanted: Sequence[str]) -> Iterator[Dialect]:
    """Yields the ways to quote, the likeliest first; the first that reads the whole file is used."""
    plain = Dialect(delimiter)
    text = "".join(sample)
    spaced = bool(_QUOTE_AFTER_SPACE.search(text)) or bool(re.search(rf'{re.escape(delimiter)} +"(?!")', text))
    single = re.compile(rf"(?:^|{re.escape(delimiter)})'[^']*'(?={re.escape(delimiter)}|[\r\n]|$)", re.MULTILINE)
    quoted = len(single.findall(text))
    if quoted >= 0.5 * len(sample) and '"' not in sample[0]:
        header = [name.strip("'") for name in _header_of(sample, delimiter)]
        if not wanted or set(wanted) & set(header):
            yield Dialect(delimiter, "'")
            yield Dialect(delimiter, "'", skipinitialspace=True)
    if '\\"' in text and not re.search(r'(?<!\\)""(?![,;\t|\r\n])', text):
        yield Dialect(delimiter, escapechar="\\")
    if spaced:
        yield Dialect(delimiter, skipinitialspace=True)
        yield Dialect(delimiter, skipinitialspace=True, escapechar="\\")
    yield plain
    yield Dialect(delimiter, skipinitialspace=True)
    yield Dialect(delimiter, escapechar="\\")
    if quoted and not re.search(rf'(?:^|{re.escape(delimiter)})\s*"', text, re.MULTILINE):
        yield Dialect(delimiter, "'")
    # Tools that separate by tabs often quote nothing. With commas, a stray quote is a mistake to be seen.
    cell = rf'(?:^|{re.escape(delimiter)})"[^"]*"(?={re.escape(delimiter)}|[\r\n]|$)'
    if delimiter in ("\t", "|") and not re.search(cell, text, re.MULTILINE):
        yield Dialect(delimiter, quoting=csv.QUOTE_NONE)


def _whole(path: Path, codec: str, dialect: Dialect, skipped: int) -> Layout:
    """Reads the whole file by a dialect and returns its layout; the common case runs in C only."""
    with text_lines(path, codec, skipped) as lines:
        reader = dialect.reader(lines)
        try:
            fields = next(filter(None, reader), [])
            start = reader.line_num
            lengths = Counter(map(len, reader))
        except csv.Error:
            lengths, fields = None, None
    if fields is None:
        raise _Broken(_broken_quotes(path, codec, dialect, skipped))
    header = _checked_header(path, fields, dialect)
    if set(lengths or ()) <= {len(header), 0}:
        return Layout(dialect, header, skipped)
    return Layout(dialect, header, skipped, _has_extra(path, codec, dialect, skipped, len(header), start))


def _has_extra(path: Path, codec: str, dialect: Dialect, skipped: int, width: int, header_line: int) -> bool:
    """Returns whether some lines end with further delimiters; raises `_Broken` for any other length."""
    with text_lines(path, codec, skipped) as lines:
        reader, start, extra = dialect.reader(lines), 1, False
        for number, fields in enumerate(reader):
            ragged = len(fields) != width and any(field.strip() for field in fields)
            if ragged and number:
                if len(fields) < width or any(field.strip() for field in fields[width:]):
                    raise _Broken(_ragged(path, dialect, width, len(fields), start + skipped))
                extra = True
            start = reader.line_num + 1
    return extra


def _ragged(path: Path, dialect: Dialect, width: int, got: int, line: int) -> DataError:
    from hfssl.data.formats.base import counted

    return DataError(
        f"expected {counted(width, 'field')} as in the header of '{path}', got {got} on line {line}: put texts that "
        f"hold a {dialect.name} in double quotes, or name another delimiter with --delimiter (delimiter=)."
    )


def _broken_quotes(path: Path, codec: str, dialect: Dialect, skipped: int) -> DataError:
    with text_lines(path, codec, skipped) as lines:
        reader, start = dialect.reader(lines), 1
        try:
            for _ in reader:
                start = reader.line_num + 1
        except csv.Error as error:
            return DataError(
                f"expected well-formed quotes in '{path}', got a broken row that starts on line {start + skipped} "
                f"({error}): put texts that hold quotes in double quotes and double the quotes inside."
            )
    raise AssertionError("the file changed while it was read")


def _cleaned(name: str) -> str:
    return name.strip().strip(_MARKS).strip()


def _checked_header(path: Path, fields: list[str], dialect: Dialect) -> list[str]:
    header = [_cleaned(name) for name in fields]
    if len(header) == 1:
        other = max((d for d in USUAL if d != dialect.delimiter), key=header[0].count)
        if other in header[0]:
            raise _Broken(
                DataError(
                    f"expected {dialect.name}-separated columns in '{path}', but its header looks "
                    f"{DELIMITER_NAMES[other]}-separated ({header[0]!r}): name the right delimiter with --delimiter "
                    "(delimiter=)."
                )
            )
    # Spreadsheets write empty columns behind the last one; each needs a name of its own.
    blank = header.count("") > 1
    return [name or (f"Unnamed: {number}" if blank else "") for number, name in enumerate(header)]
