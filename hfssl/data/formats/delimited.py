"""Reads CSV, TSV and their relatives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from hfssl.data.formats.base import TableFile, TableOptions
from hfssl.data.formats.dialects import Layout, detect_layout, text_lines
from hfssl.data.formats.encodings import Encoding, detect_encoding

__all__ = ["DelimitedFile"]

SUFFIX_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": None}


class DelimitedFile(TableFile):
    """Is a delimited text file (RFC 4180: a cell with the delimiter, a quote or a line break is in double quotes)."""

    def __init__(self, path: Path, suffix: str, wanted: Sequence[str] | None, options: TableOptions):
        super().__init__(path, unit="line")
        self.encoding = detect_encoding(path, options.encoding)
        usual = SUFFIX_DELIMITERS.get(suffix, ",")
        self.layout = detect_layout(path, self.encoding.codec, usual, wanted, options.separator or None)
        self.columns = self.layout.header
        self.notices += _told(path.name, self.encoding, self.layout, usual, options)
        self.check_repeated(wanted)

    def records(self, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yields the line on which each row starts, and its cells as strings."""
        names = self.columns or []
        places = [names.index(column) for column in columns]
        chosen = itemgetter(*places) if len(places) > 1 else lambda fields: tuple(fields[place] for place in places)
        width, skipped = len(names), self.layout.skipped_lines
        with text_lines(self.path, self.encoding.codec, skipped) as lines:
            reader = self.layout.dialect.reader(lines)
            next(filter(None, reader), None)
            start = reader.line_num + 1
            for fields in reader:
                if len(fields) >= width and (fields or not width):  # others are blank: the layout was checked
                    yield start + skipped, chosen(fields)
                start = reader.line_num + 1


def _told(name: str, encoding: Encoding, layout: Layout, usual: str | None, options: TableOptions) -> list[str]:
    """Returns one sentence about a file that is not what its name promises; none about an ordinary one."""
    dialect = layout.dialect
    remarks = dialect.remarks() + (["empty cells at the ends of lines are left out"] if layout.extra else [])
    if encoding.usual and dialect.delimiter == usual and not remarks:
        return []
    delimiter = {"\t": "tab", " ": "space"}.get(dialect.delimiter, f"`{dialect.delimiter}`")
    separated = f"{delimiter}-separated " if len(layout.header) > 1 else "one column of "
    codec = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8", "utf-16": "UTF-16"}.get(encoding.codec, encoding.codec)
    guessed = ["the encoding was found by its letters: if texts look wrong, name another with --encoding"]
    said = [*remarks, *(guessed if encoding.guessed else [])]
    overrides = [
        flag
        for flag, given in (("--delimiter", options.delimiter), ("--encoding", options.encoding))
        if given is None and not (encoding.guessed and flag == "--encoding")
    ]
    if overrides:
        said.append(
            f"{' and '.join(overrides)} override this" if len(overrides) > 1 else f"{overrides[0]} overrides this"
        )
    return [f"'{name}' is read as {separated}{codec}" + (f" ({'; '.join(said)})." if said else ".")]
