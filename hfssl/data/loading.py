"""Loads every kind of table: CSV, TSV, JSON lines, Parquet, a folder of them, a saved data set, or a Hub id.

The result always has the same columns, so that the other modules do not depend on the source of a row.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset, load_from_disk

from hfssl.data.tables import (
    LABEL_NAMES_FILE,
    TABLE_SUFFIXES,
    parquet_schema,
    read_label_names,
    read_rows,
    table_files,
)
from hfssl.errors import ConfigurationError, DataError, near_matches

__all__ = ["UNLABELED", "load_table"]

UNLABELED = -1
# pandas writes "1.0" for integers in a column with missing values; "007" is a code, not a number.
_INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)(\.0*)?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FILE_SUFFIXES = (*TABLE_SUFFIXES, ".json", ".txt", ".xlsx", ".xls", ".ods", ".gz", ".zip", ".arrow", ".feather")


Place = tuple[str, int]  # ("'reviews.csv', line", 12): formatted only for a message


@dataclass
class _Source:
    """Holds the rows of one table with their positions, and label names where the source has them."""

    name: str
    rows: Iterator[tuple[Place, dict[str, Any]]]
    class_names: dict[str, list[str]] = field(default_factory=dict)
    names_file: list[str] | None = None  # names of integer labels, from the file `labels.json` in the same folder


def load_table(
    path_or_hub_id: str | os.PathLike,
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
) -> Dataset:
    """Loads a table of texts, with or without labels.

    Args:
        path_or_hub_id (`str | os.PathLike`): A .csv, .tsv, .jsonl, .ndjson or .parquet file, a folder of those, a
            `save_to_disk` folder, or the id of a data set on the Hub.
        text_column (`str`, defaults to `"text"`): Column with the text; numbers are read as text, missing values as
            `""`.
        label_column (`str | None`, defaults to `"label"`): Column with the label, strings or integers. A missing,
            empty or null label, or -1, becomes -1 (unlabeled). `None`: the table is unlabeled.
        text_pair_column (`str`, *optional*): Column with a second text (a hypothesis, an answer), for tasks about
            pairs.
        group_column (`str`, *optional*): Column with the group (author, film) of a row; rows of one group are never
            split apart.
        id_column (`str`, *optional*): Column with a unique name of each row. Default: the row's number, from 0.
        label_names (`Sequence[str]`, *optional*): Class names in order. Default: the names that the source defines;
            else, for integer labels, the list in `labels.json` in the folder of the file, if it covers all labels;
            else the sorted distinct labels (integers in numerical order). Integer labels that are not names are
            positions in the list.
        split (`str`, defaults to `"train"`): Split of a folder with named splits, of a saved `DatasetDict`, or of a
            Hub data set.
        revision (`str`, *optional*): Commit, tag or branch of a Hub data set.
        max_characters (`int`, defaults to `20000`): Length in characters at which texts are cut, which bounds the
            tokenizer's memory; `truncated` marks such rows.
        optional (`Sequence[str]`, defaults to `()`): Names among `"group_column"` and `"id_column"`: columns that the
            table may lack; a missing one is ignored.

    Returns:
        A `Dataset` with the columns `text`, `text_pair` (only with `text_pair_column`), `label` (`ClassLabel`, -1 =
        unlabeled), `group` (only with `group_column`; `""` = no group), `id`, and `truncated` (bool).

    Raises:
        DataError: if the table, a column, a text, a label or an id cannot be used; the message names it and a fix.
        ConfigurationError: if `max_characters` is below 1.

    Example:
        >>> import hfssl
        >>> rows = hfssl.load_table(table)
        >>> len(rows), rows.features["label"].names
        (40, ['no', 'yes'])
    """
    if max_characters < 1:
        raise ConfigurationError(f"expected max_characters of at least 1, got {max_characters}.")
    options = {"text_column": text_column, "text_pair_column": text_pair_column, "label_column": label_column}
    options |= {"group_column": group_column, "id_column": id_column}
    wanted = {option: column for option, column in options.items() if column is not None}
    source = _open_source(path_or_hub_id, list(dict.fromkeys(wanted.values())), split, revision)
    values, places = _collect(source, wanted, optional)

    columns, truncated = _text_columns(values, places, source.name, wanted, max_characters)
    if label_column is None:
        columns["label"], names = [UNLABELED] * len(places), list(label_names or [])
    else:
        own_names = source.class_names.get(label_column)
        labels = [_label(value, own_names, place) for value, place in zip(values["label_column"], places, strict=True)]
        label_names = label_names or own_names or _fitting(source.names_file, labels)
        columns["label"], names = _encode_labels(labels, label_names, places, source.name)
    if "group_column" in values:
        columns["group"] = _as_texts(values["group_column"], places, group_column)  # pyright: ignore[reportArgumentType]
    columns["id"] = [str(number) for number in range(len(places))]
    if "id_column" in values:
        columns["id"] = _checked_ids(values["id_column"], places, id_column)  # pyright: ignore[reportArgumentType]
    columns["truncated"] = truncated
    kinds = {"label": ClassLabel(names=names), "truncated": Value("bool")}
    return Dataset.from_dict(columns, features=Features({c: kinds.get(c, Value("string")) for c in columns}))


def _open_source(path_or_hub_id: str | os.PathLike, columns: list[str], split: str, revision: str | None) -> _Source:
    name = os.fspath(path_or_hub_id)
    path = Path(name)
    if path.is_dir():
        if any((path / file).exists() for file in ("dataset_dict.json", "dataset_info.json", "state.json")):
            return _dataset_source(_saved_dataset(path, split), name, columns)
        return _file_source(table_files(path, split), name, columns)
    if not path.exists() and _HUB_ID.fullmatch(name) and path.suffix.lower() not in _FILE_SUFFIXES:
        return _dataset_source(_hub_dataset(name, split, revision), name, columns)
    return _file_source([path], name, columns)


def _file_source(paths: list[Path], name: str, columns: list[str]) -> _Source:
    def rows() -> Iterator[tuple[Place, dict[str, Any]]]:
        for path in paths:
            unit = "row" if path.suffix.lower() == ".parquet" else "line"
            where = f"'{path}', {unit}"
            for number, row in read_rows(path, columns):
                yield (where, number), row

    first = paths[0]
    source = _Source(name, rows(), names_file=read_label_names(first.parent / LABEL_NAMES_FILE))
    if first.suffix.lower() == ".parquet" and first.is_file() and first.stat().st_size:
        source.class_names = _class_names(Features.from_arrow_schema(parquet_schema(first)))
    return source


def _dataset_source(dataset: Dataset, name: str, columns: list[str]) -> _Source:
    if set(columns) <= set(dataset.column_names):
        dataset = dataset.select_columns(columns)  # avoids decoding of images and other columns
    where = f"'{name}', row"
    rows = (((where, number), row) for number, row in enumerate(dataset, start=1))
    return _Source(name, rows, _class_names(dataset.features))  # pyright: ignore[reportArgumentType]


def _class_names(features: Features) -> dict[str, list[str]]:
    return {column: list(kind.names) for column, kind in features.items() if isinstance(kind, ClassLabel)}


def _saved_dataset(path: Path, split: str) -> Dataset:
    try:
        loaded = load_from_disk(str(path))
    except (OSError, ValueError, LookupError) as error:
        raise DataError(
            f"expected a data set made by `save_to_disk` in '{path}', got {error}: save it again."
        ) from error
    if isinstance(loaded, DatasetDict):
        if split not in loaded:
            raise DataError(
                f"expected the split '{split}' in '{path}', found {_listed(loaded)}."  # pyright: ignore[reportArgumentType]
                f"{near_matches(split, list(loaded))} Name one of these with split=."  # pyright: ignore[reportArgumentType]
            )
        return loaded[split]
    return loaded


def _hub_dataset(name: str, split: str, revision: str | None) -> Dataset:
    try:
        return load_dataset(name, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"expected a file, a folder, or the id of a data set on the Hub, got '{name}', which is neither here nor "
            f"could be loaded ({reason}): check the spelling, or save the data set to a folder and name that."
        ) from error


def _collect(
    source: _Source, wanted: dict[str, str], optional: Sequence[str]
) -> tuple[dict[str, list[Any]], list[Place]]:
    """Reads the requested columns and the position of each row.

    Rows of JSON lines may lack a key, so a column is missing only if no row has it.
    """
    values: dict[str, list[Any]] = {option: [] for option in wanted}
    places, seen = [], {}
    for place, row in source.rows:
        places.append(place)
        seen.update(dict.fromkeys(row))
        for option, column in wanted.items():
            values[option].append(row.get(column))
    if not places:
        raise DataError(f"expected rows in '{source.name}', got none below its header: check how it was written.")
    for option, column in wanted.items():
        if column not in seen and option in optional:
            del values[option]
        elif column not in seen:
            raise DataError(
                f"expected a column '{column}' in '{source.name}', found {_listed(seen)}."
                f"{near_matches(column, list(seen))} Name the right one with --{option.replace('_', '-')} ({option}=)."
            )
    return values, places


def _text_columns(
    values: dict[str, list[Any]], places: list[Place], source: str, wanted: dict[str, str], max_characters: int
) -> tuple[dict[str, list[Any]], list[bool]]:
    columns: dict[str, list[Any]] = {}
    truncated = [False] * len(places)
    for option, name in (("text_column", "text"), ("text_pair_column", "text_pair")):
        if option not in wanted:
            continue
        texts = _as_texts(values[option], places, wanted[option])
        truncated = [was or len(text) > max_characters for was, text in zip(truncated, texts, strict=True)]
        columns[name] = [text[:max_characters] for text in texts]
    if not any(text.strip() for text in columns["text"]):
        raise DataError(
            f"expected texts in the column '{wanted['text_column']}' of '{source}', got {len(places)} empty ones: "
            "name the column that holds the text with --text-column (text_column=)."
        )
    return columns, truncated


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _as_texts(values: list[Any], places: list[Place], column: str) -> list[str]:
    return [_as_text(value, place, column) for value, place in zip(values, places, strict=True)]


def _as_text(value: Any, place: Place, column: str) -> str:
    if _missing(value):
        return ""
    if not isinstance(value, str | int | float):
        raise DataError(
            f"expected one text a row in the column '{column}', got a {type(value).__name__} at {_at(place)}: join it "
            "into one string."
        )
    # JSON can hold half of a surrogate pair (a cut emoji), which neither UTF-8 files nor tokenizers accept.
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _label(value: Any, own_names: list[str] | None, place: Place) -> str | int | None:
    """Returns one label as a name or an integer; `None` = unlabeled."""
    if _missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    if own_names is not None and isinstance(value, int) and 0 <= value < len(own_names):
        return own_names[value]
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return None if value == UNLABELED else value
    if not isinstance(value, str | float):
        raise DataError(
            f"expected one label a row, a string or an integer, got a {type(value).__name__} at {_at(place)}: give "
            "each row one label."
        )
    return None if str(value).strip() == str(UNLABELED) else str(value).strip()


def _fitting(names: list[str] | None, labels: list[str | int | None]) -> list[str] | None:
    """Returns `names` if every label is a position in that list, else `None`: the file may have another purpose."""
    given = [str(label) for label in labels if label is not None]
    if names is None or not all(_INTEGER.fullmatch(label) for label in given):
        return None
    numbers = {int(label.split(".")[0]) for label in given} - {UNLABELED}
    return names if all(0 <= number < len(names) for number in numbers) else None


def _encode_labels(
    labels: list[str | int | None], label_names: Sequence[str] | None, places: list[Place], source: str
) -> tuple[list[int], list[str]]:
    """Returns labels as positions in the list of names (-1 = unlabeled), and that list."""
    given = [label for label in labels if label is not None]
    names = None if label_names is None else list(label_names)
    if all(isinstance(label, int) or _INTEGER.fullmatch(label) for label in given):
        labels = [None if label is None else int(str(label).split(".")[0]) for label in labels]
        labels = [None if label == UNLABELED else label for label in labels]  # "-1.0" in a CSV
        numbers = sorted({label for label in labels if label is not None})
        if names is None:
            names = [str(number) for number in numbers]
        elif not {str(number) for number in numbers} <= set(names):
            return [_position(label, names, place) for label, place in zip(labels, places, strict=True)], names  # pyright: ignore[reportArgumentType]
    texts = [None if label is None else str(label) for label in labels]
    if names is None:
        names = sorted({text for text in texts if text is not None})
    if len(set(names)) != len(names):
        raise DataError(f"expected each label name once for '{source}', got {_listed(names)}: remove the repetition.")
    index = {name: position for position, name in enumerate(names)}
    for text, place in zip(texts, places, strict=True):
        if text is not None and text not in index:
            raise DataError(
                f"expected one of the labels {_listed(names)}, got '{text}' at {_at(place)}."
                f"{near_matches(text, names)} Correct or remove the row, or add training rows with that label."
            )
    return [UNLABELED if text is None else index[text] for text in texts], names


def _position(label: int | None, names: list[str], place: Place) -> int:
    if label is None:
        return UNLABELED
    if not 0 <= label < len(names):
        raise DataError(
            f"expected integer labels from 0 to {len(names) - 1} (positions in {_listed(names)}) or -1 for unlabeled, "
            f"got {label} at {_at(place)}: correct or remove the row."
        )
    return label


def _checked_ids(values: list[Any], places: list[Place], column: str) -> list[str]:
    first: dict[str, Place] = {}
    for value, place in zip(values, places, strict=True):
        name = _as_text(value, place, column)
        if not name or name in first:
            got = f"'{name}' twice (at {_at(first[name])} and at {_at(place)})" if name else f"none at {_at(place)}"
            raise DataError(
                f"expected a different id in each row of the column '{column}', got {got}: correct the ids, or leave "
                "--id-column (id_column=) out to number the rows."
            )
        first[name] = place
    return list(first)


def _at(place: Place) -> str:
    return f"{place[0]} {place[1]}"


def _listed(names: Iterable[str], limit: int = 12) -> str:
    names = [repr(name) for name in names]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
