"""Loads every kind of table: text, JSON, Parquet, Arrow, workbooks, folders, saved data sets, or a Hub id.

The result always has the same columns. What was assumed about the table is told, one sentence each.
"""

from __future__ import annotations

import datetime
import math
import os
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Value
from transformers.utils import logging

from hfssl.data.formats.base import ABSENT, TableFile, TableOptions, counted, listed
from hfssl.data.in_memory import is_in_memory, memory_source
from hfssl.data.label_column import UNLABELED
from hfssl.data.label_names import invisible_stripped, missing_list
from hfssl.data.label_values import LabelOptions, decode_labels
from hfssl.data.sources import Source, open_source
from hfssl.data.tables import unreadable
from hfssl.data.text_checks import text_warnings
from hfssl.errors import ConfigurationError, DataError, near_matches

if TYPE_CHECKING:
    from hfssl.data.in_memory import TableLike

__all__ = ["UNLABELED", "VIEW_COLUMN", "load_table", "read_table"]

logger = logging.get_logger(__name__)

SPELLED = (str, int, float, Decimal, UUID, datetime.date, datetime.time, datetime.timedelta)
CHUNK = 4096  # rows turned into columns at once

VIEW_COLUMN = "view_columns "
"""Start of the option of a column with other texts of a row, for views of consistency training."""


def load_table(
    path_or_hub_id: TableLike,
    text_column: str = "text",
    label_column: str | None = "label",
    *,
    text_pair_column: str | None = None,
    group_column: str | None = None,
    id_column: str | None = None,
    label_names: Sequence[str] | None = None,
    split: str = "train",
    revision: str | None = None,
    max_characters: int = 20_000,
    optional: Sequence[str] = (),
    delimiter: str | None = None,
    encoding: str | None = None,
    decimal: Literal[".", ","] | None = None,
    sheet: str | None = None,
    missing_labels: str | Iterable[str] | None = None,
    keep_label_variants: bool = False,
    view_columns: Sequence[str] = (),
) -> Dataset:
    """Loads a table of texts, with or without labels.

    What was assumed about the table (its format, labels that mean "none", joined spellings) is logged as a warning.

    Args:
        path_or_hub_id (`TableLike`): A table file (`hfssl.data.tables.TABLE_SUFFIXES`, also compressed: `.gz`, `.bz2`,
            `.xz`), a folder of those, a `save_to_disk` folder, or the id of a data set on the Hub; `:SPLIT` after it
            names a split (of a workbook: a sheet). Or data in memory: a `Dataset` or `DatasetDict`, a pandas
            `DataFrame`, a dict of columns, or a list of dicts, of texts, or of (text, label) pairs.
        text_column (`str`, defaults to `"text"`): Column with the text; numbers are read as text, missing values as
            `""`.
        label_column (`str | None`, defaults to `"label"`): Column with the label, strings or integers. A missing,
            empty or null label, or one of `missing_labels`, becomes -1 (unlabeled). The integer -1 means unlabeled in
            a data set of `datasets` or where names are given, and is a class in files. `None`: the table is unlabeled.
        text_pair_column (`str`, *optional*): Column with a second text (a hypothesis, an answer), for tasks about
            pairs.
        group_column (`str`, *optional*): Column with the group (author, film) of a row; rows of one group are never
            split apart.
        id_column (`str`, *optional*): Column with a unique name of each row. Default: the row's number, from 0.
        label_names (`Sequence[str]`, *optional*): Class names in order. Default: the names that the source defines;
            else, for integer labels, the list in `labels.json` in the folder of the file, if it covers all labels;
            else the sorted distinct labels (numbers in numerical order). Integer labels that are not names are
            positions in the list.
        split (`str`, defaults to `"train"`): Split of a folder with named splits, of a saved `DatasetDict`, of a
            workbook, or of a Hub data set, if the source itself names none.
        revision (`str`, *optional*): Commit, tag or branch of a Hub data set.
        max_characters (`int`, defaults to `20000`): Length in characters at which texts are cut, which bounds the
            tokenizer's memory; `truncated` marks such rows.
        optional (`Sequence[str]`, defaults to `()`): Names among `"group_column"` and `"id_column"`: columns that the
            table may lack; a missing one is ignored.
        delimiter (`str`, *optional*): Character between the columns of a delimited file, or its name (`"tab"`).
            Default: detected.
        encoding (`str`, *optional*): Encoding of text files. Default: detected.
        decimal (`"." | ","`, *optional*): Decimal mark of labels that are numbers. Default: detected.
        sheet (`str`, *optional*): Sheet of a workbook. Default: the first one with the columns.
        missing_labels (`str | Iterable[str]`, *optional*): Labels that mean "none", in any case, as a list or with
            commas between them. Default: `hfssl.data.label_names.MISSING_LABELS` (`#N/A`, `NULL`, `-`, `None`, ...).
        keep_label_variants (`bool`, defaults to `False`): Whether label names that differ only in case, space,
            Unicode form or invisible characters stay apart.
        view_columns (`Sequence[str]`, defaults to `()`): Columns with other texts of a row (back-translations,
            paraphrases), for views of consistency training; they keep their names.

    Returns:
        A `Dataset` with the columns `text`, `text_pair` (only with `text_pair_column`), `label` (`ClassLabel`, -1 =
        unlabeled), `group` (only with `group_column`; `""` = no group), `id`, and `truncated` (bool).

    Raises:
        DataError: if the table, a column, a text, a label or an id cannot be used; the message names it and a fix.
        ConfigurationError: if `max_characters` is below 1, or an option of the format has no meaning.

    Example:
        >>> import hfssl
        >>> rows = hfssl.load_table(table)
        >>> len(rows), rows.features["label"].names
        (40, ['no', 'yes'])
    """
    options = TableOptions(delimiter, encoding, decimal, sheet)
    dataset, notices = read_table(
        path_or_hub_id,
        {
            "text_column": text_column,
            "text_pair_column": text_pair_column,
            "label_column": label_column,
            "group_column": group_column,
            "id_column": id_column,
            **{f"{VIEW_COLUMN}{column}": column for column in view_columns},
        },
        label_names=label_names,
        split=split,
        revision=revision,
        max_characters=max_characters,
        optional=optional,
        options=options,
        label_options=LabelOptions(missing_list(missing_labels), keep_label_variants, decimal),
    )
    for notice in notices:
        logger.warning(notice)
    return dataset


def read_table(
    path_or_hub_id: Any,
    columns: dict[str, str | None],
    *,
    label_names: Sequence[str] | None = None,
    split: str = "train",
    revision: str | None = None,
    max_characters: int = 20_000,
    optional: Sequence[str] = (),
    options: TableOptions | None = None,
    label_options: LabelOptions | None = None,
) -> tuple[Dataset, list[str]]:
    """Loads a table as `load_table` does, and returns what was assumed about it, a sentence each.

    Args:
        path_or_hub_id (`Any`): See `load_table`, or an opened `Source`; so are `label_names`, `split`, `revision`,
            `max_characters` and `optional`.
        columns (`dict[str, str | None]`): Column of the table by the name of the option (`"text_column"`, ...). A
            name that begins with `VIEW_COLUMN` is that of a column with other texts, which keeps its name.
        options (`TableOptions`, *optional*): What the user says about the format.
        label_options (`LabelOptions`, *optional*): What the user says about labels.

    Raises:
        DataError, ConfigurationError: as `load_table`.
    """
    if max_characters < 1:
        raise ConfigurationError(f"expected max_characters of at least 1, got {max_characters}.")
    wanted = {option: column for option, column in columns.items() if column is not None}
    names = list(dict.fromkeys(wanted.values()))
    if isinstance(path_or_hub_id, Source):
        source = path_or_hub_id
    elif is_in_memory(path_or_hub_id):
        source = memory_source(path_or_hub_id, names, split=split)
    else:
        source = open_source(path_or_hub_id, names, split=split, revision=revision, options=options)
    rows = _collect(source, wanted, optional)
    notices = [*source.notices, *rows.notices]
    made, truncated, told = _text_columns(rows, source.name, wanted, max_characters)
    notices += told
    label_column = wanted.get("label_column")
    if label_column is None:
        made["label"], names = [UNLABELED] * len(rows), list(label_names or [])
    else:
        made["label"], names, told = decode_labels(
            rows.values["label_column"],
            rows.at,
            os.path.basename(source.name) or source.name,
            own_names=source.files[0].class_names.get(rows.found.get(label_column, label_column)),
            given_names=label_names or None,
            names_file=source.names_file,
            is_dataset=source.is_dataset,
            options=label_options,
        )
        notices += told
    if "group_column" in rows.values:
        made["group"], _ = _as_texts(rows, "group_column", wanted["group_column"])
    made["id"] = list(map(str, range(len(rows))))
    if "id_column" in rows.values:
        made["id"] = _checked_ids(rows, wanted["id_column"])
    made["truncated"] = truncated
    for option, column in wanted.items():
        if option.startswith(VIEW_COLUMN):
            made[column], _ = _as_texts(rows, option, column)
    kinds = {"label": ClassLabel(names=names), "truncated": Value("bool")}
    features = Features({column: kinds.get(column, Value("string")) for column in made})
    # `Dataset.from_dict` looks at every value for images and numpy arrays, which takes longer than all else.
    return Dataset(pa.Table.from_pydict(made, schema=features.arrow_schema)), notices


@dataclass
class _Rows:
    """Holds the columns that were read, and where each row came from.

    Args:
        values (`dict[str, list[Any]]`): Option -> values of its column.
        places (`list[int]`): Line or row of each row in its file.
        starts (`list[int]`): First row of each file.
        where (`list[str]`): Words for each file, before the place.
        names (`list[str]`): Names of all columns of the table.
        found (`dict[str, str]`): Column that was asked for -> the table's own spelling of it.
        notices (`list[str]`): What was assumed.
    """

    values: dict[str, list[Any]]
    places: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.places)

    def at(self, row: int) -> str:
        """Returns the place of a row in words: "'reviews.csv', line 12"."""
        return f"{self.where[bisect_right(self.starts, row) - 1]} {self.places[row]}"


def _collect(source: Source, wanted: dict[str, str], optional: Sequence[str]) -> _Rows:
    """Reads the requested columns and the position of each row.

    Rows of JSON lines may lack a key, so a column is missing only if no row has it.
    """
    rows = _Rows({option: [] for option in wanted})
    seen: dict[str, None] = {}
    told: list[str] = []
    for file in source.files:
        rows.starts.append(len(rows))
        rows.where.append(file.where())
        spelled = {column: _own_spelling(column, file.columns) for column in wanted.values()}
        present = {option: spelled[column] for option, column in wanted.items() if spelled[column] is not None}
        seen.update(dict.fromkeys(file.columns or ()))
        if all(option in optional or option in present for option in wanted) or len(source.files) > 1:
            rows.found |= {column: own for column, own in spelled.items() if own is not None}
            seen.update(dict.fromkeys(present.values() if file.columns else ()))  # pyright: ignore[reportArgumentType, reportCallIssue]
            _append(rows, file, wanted, present)  # pyright: ignore[reportArgumentType]
        told += file.notices
    _check_columns(rows, source, wanted, optional, seen)
    if not rows.places:
        raise DataError(f"expected rows in '{source.name}', got none below its header: check how it was written.")
    rows.names = list(seen)
    rows.notices = [*dict.fromkeys(told), *rows.notices, *_told_absent(rows, source, wanted)]
    return rows


def _append(rows: _Rows, file: TableFile, wanted: dict[str, str], present: dict[str, str]) -> None:
    columns = list(dict.fromkeys(present.values()))
    records = file.records(columns)
    try:
        while chunk := list(islice(records, CHUNK)):
            places, values = zip(*chunk, strict=True)
            rows.places += places
            by_column = dict(zip(columns, zip(*values, strict=True), strict=True)) if columns else {}
            for option in wanted:
                found = by_column.get(present.get(option, ""))
                rows.values[option] += found if found is not None else (None,) * len(places)
    except (OSError, EOFError) as error:
        raise unreadable(file.path, error) from error


def _own_spelling(column: str, columns: list[str] | None) -> str | None:
    """Returns the table's spelling of a column, which may have another Unicode form; `None` if it lacks it."""
    if columns is None or column in columns:
        return column
    same = [name for name in columns if _form(name) == _form(column)]
    return same[0] if len(same) == 1 else None


def _form(name: str) -> str:
    return invisible_stripped(unicodedata.normalize("NFC", name))


def _check_columns(
    rows: _Rows, source: Source, wanted: dict[str, str], optional: Sequence[str], seen: dict[str, None]
) -> None:
    for option, column in wanted.items():
        values = rows.values[option]
        if any(file.columns is None for file in source.files):  # JSON lines
            known = column in seen or any(value is not ABSENT and value is not None for value in values)
            known = known or any(value is None for value in values)
            names = list(seen) or _keys(source)
        else:
            known, names = any(_own_spelling(column, file.columns) for file in source.files), list(seen)
        if known:
            continue
        if option in optional:
            del rows.values[option]
            continue
        option = option.partition(" ")[0]
        raise DataError(
            f"expected a column '{column}' in '{source.name}', found {listed(names)}.{near_matches(column, names)} "
            f"Name the right one with --{option.replace('_', '-')} ({option}=)."
        )


def _keys(source: Source) -> list[str]:
    """Returns the keys of the first objects of JSON lines, for a message."""
    return list(dict.fromkeys(key for file in source.files for _, row in islice(file.rows(), 1000) for key in row))


def _told_absent(rows: _Rows, source: Source, wanted: dict[str, str]) -> list[str]:
    """Tells of objects without a key, and of files without a column: they may have it under another name."""
    notices = []
    for option, column in wanted.items():
        lacking = sum(value is ABSENT for value in rows.values.get(option, ()))
        what = {"label_column": " and count as unlabeled", "text_column": " and have no text"}.get(option, "")
        if lacking:
            similar = [
                name for name in _keys(source) if name != column and _form(name).lower() == _form(column).lower()
            ]
            hint = f" (others have the key '{similar[0]}')" if similar else ""
            notices.append(
                f"{lacking:,} of {counted(len(rows), 'row')} of '{source.name}' lack the key '{column}'{what}{hint}."
            )
        for file in source.files:
            if len(source.files) > 1 and file.columns is not None and _own_spelling(column, file.columns) is None:
                if option in rows.values:
                    notices.append(f"'{file.path.name}' has no column '{column}'; its rows have no such value.")
    return notices


def _text_columns(
    rows: _Rows, source: str, wanted: dict[str, str], max_characters: int
) -> tuple[dict[str, list[Any]], list[bool], list[str]]:
    columns: dict[str, list[Any]] = {}
    truncated = [False] * len(rows)
    notices: list[str] = []
    others = [name for name in rows.names if name not in wanted.values() and name]
    for option, name in (("text_column", "text"), ("text_pair_column", "text_pair")):
        if option not in wanted:
            continue
        texts, told = _as_texts(rows, option, wanted[option])
        notices += told
        if max(map(len, texts)) > max_characters:
            truncated = [was or len(text) > max_characters for was, text in zip(truncated, texts, strict=True)]
            texts = [text[:max_characters] for text in texts]
        columns[name] = texts
    if not any(text.strip() for text in columns["text"]):
        raise DataError(
            f"expected texts in the column '{wanted['text_column']}' of '{source}', got {len(rows)} empty ones: "
            "name the column that holds the text with --text-column (text_column=)."
        )
    if "text_pair_column" not in wanted:  # in pairs, a short or repeated text is common
        notices += text_warnings(columns["text"], wanted["text_column"], os.path.basename(source) or source, others)
    return columns, truncated, notices


def _as_texts(rows: _Rows, option: str, column: str) -> tuple[list[str], list[str]]:
    """Returns the values of a column as texts, and a sentence if broken characters were replaced."""
    values = rows.values[option]
    texts = [v if type(v) is str else _as_text(v, rows, row, column) for row, v in enumerate(values)]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        # JSON can hold half of a surrogate pair (a cut emoji), which neither UTF-8 files nor tokenizers accept.
        whole = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        count = sum(text != was for text, was in zip(whole, texts, strict=True))
        return whole, [f"half a character was replaced by ? in {counted(count, 'value')} of the column '{column}'."]
    return texts, []


def _as_text(value: Any, rows: _Rows, row: int, column: str) -> str:
    if value is None or value is ABSENT or (isinstance(value, float | Decimal) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"expected texts in the column '{column}', got bytes that are not UTF-8 at {rows.at(row)}: decode "
                "them first."
            ) from error
    if not isinstance(value, SPELLED):
        raise DataError(
            f"expected one text a row in the column '{column}', got a {type(value).__name__} at {rows.at(row)}: join "
            "it into one string."
        )
    return str(value)


def _checked_ids(rows: _Rows, column: str) -> list[str]:
    names, _ = _as_texts(rows, "id_column", column)
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if not name or first.setdefault(name, row) != row:
            at = rows.at(row)
            got = f"'{name}' twice (at {rows.at(first[name])} and at {at})" if name else f"none at {at}"
            raise DataError(
                f"expected a different id in each row of the column '{column}', got {got}: correct the ids, or leave "
                "--id-column (id_column=) out to number the rows."
            )
    return names
