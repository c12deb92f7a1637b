"""Finds what `--train`, `--test` and the others name: a file, a folder, a saved data set, a Hub id, or a split of one.

`SOURCE:SPLIT` names a split (of a workbook: a sheet). Else each table has names of its own: `--test` reads the split
`test` of a source that has several.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
from datasets import (
    Dataset,
    DatasetDict,
    Features,
    concatenate_datasets,
    get_dataset_split_names,
    load_dataset,
    load_from_disk,
)

from hfssl.data.formats.arrow_files import DatasetTable
from hfssl.data.formats.base import TableFile, TableOptions, listed
from hfssl.data.tables import (
    COMPRESSED_SUFFIXES,
    LABEL_NAMES_FILE,
    SPLIT_NAMES,
    TABLE_SUFFIXES,
    open_table,
    read_label_names,
    table_files,
    table_suffix,
)
from hfssl.errors import DataError, near_matches

__all__ = ["FALLBACKS", "Source", "dataset_source", "open_source"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SPLIT = re.compile(r"[^/\\:]+")
_FILE_SUFFIXES = (*TABLE_SUFFIXES, *COMPRESSED_SUFFIXES, ".xls", ".ods", ".zip", ".doc", ".docx", ".pdf")
FALLBACKS = {"unlabeled": ("train", "training")}  # a pool may well be what others train on
SAVED = ("dataset_dict.json", "dataset_info.json", "state.json")  # files of `save_to_disk`


@dataclass
class Source:
    """Holds the opened files of one table.

    Args:
        name (`str`): What the user wrote.
        files (`list[TableFile]`): The files, in order.
        notices (`list[str]`): What was assumed in finding them, a sentence each.
        names_file (`list[str] | None`): Names of integer labels, from the file `labels.json` in the same folder.
    """

    name: str
    files: list[TableFile]
    notices: list[str] = field(default_factory=list)
    names_file: list[str] | None = None

    @property
    def is_dataset(self) -> bool:
        """Returns whether the table is a data set of `datasets`, where the label -1 means unlabeled."""
        return isinstance(self.files[0], DatasetTable)


def open_source(
    path_or_hub_id: str | os.PathLike,
    wanted: Sequence[str],
    *,
    split: str = "train",
    revision: str | None = None,
    options: TableOptions | None = None,
) -> Source:
    """Opens the table that a user named.

    Args:
        path_or_hub_id (`str | os.PathLike`): File, folder, saved data set, Hub id, or one of them with `:SPLIT`.
        wanted (`Sequence[str]`): Columns that will be read.
        split (`str`, defaults to `"train"`): Split of a source that has several and names none itself.
        revision (`str`, *optional*): Commit, tag or branch of a Hub data set.
        options (`TableOptions`, *optional*): What the user says about the format of files.

    Raises:
        DataError: if there is no such table or split, or a file cannot be read.
    """
    name, named = _split_named(os.fspath(path_or_hub_id))
    path, options = Path(name), options or TableOptions()
    splits = (named,) if named else (*SPLIT_NAMES.get(split, (split,)), *FALLBACKS.get(split, ()))
    if path.is_dir():
        if any((path / file).exists() for file in SAVED):
            return dataset_source(_saved_dataset(path), name, splits, bool(named), split)
        files, found = table_files(path, splits, explicit=bool(named))
        source = _file_source(files, name, wanted, options, splits)
        source.notices += _told_split(name, found, split, named)
        return source
    is_file = path.exists() or table_suffix(path) in _FILE_SUFFIXES or path.suffix.lower() in _FILE_SUFFIXES
    if not is_file and _HUB_ID.fullmatch(name):
        dataset, found = _hub_dataset(name, splits, revision, explicit=bool(named))
        return Source(name, [DatasetTable(dataset, name)], _told_split(name, found, split, named))
    if named and table_suffix(path) in (".xlsx", ".xlsm"):
        options = replace(options, sheet=named)
    elif named:
        raise DataError(f"expected a source with splits before ':{named}', got the one table '{name}': name it alone.")
    return _file_source([path], name, wanted, options, splits)


def _split_named(name: str) -> tuple[str, str | None]:
    """Splits `SOURCE:SPLIT`; a colon may also be part of a path (`C:\\data`)."""
    source, colon, split = name.rpartition(":")
    if not colon or not _SPLIT.fullmatch(split) or len(source) < 2 or Path(name).exists():
        return name, None
    return source, split


def _told_split(name: str, found: str | None, wanted: str, named: str | None) -> list[str]:
    """Returns a sentence if another split than the one with the usual name is read."""
    if found is None or named or found in SPLIT_NAMES.get(wanted, (wanted,)):
        return []
    return [f"'{name}' has no split '{wanted}'; its split '{found}' is read."]


def _file_source(
    paths: list[Path], name: str, wanted: Sequence[str], options: TableOptions, splits: Sequence[str]
) -> Source:
    files = [open_table(path, wanted, options, splits) for path in paths]
    return Source(name, files, names_file=read_label_names(paths[0].parent / LABEL_NAMES_FILE))


def dataset_source(
    loaded: Dataset | DatasetDict, name: str, splits: Sequence[str], explicit: bool, wanted: str
) -> Source:
    """Returns a data set, or the first of the splits that it has, as a source.

    Args:
        loaded (`Dataset | DatasetDict`): The data set.
        name (`str`): Its name in messages.
        splits (`Sequence[str]`): Names of the split, the first that exists is read.
        explicit (`bool`): Whether the user named the split.
        wanted (`str`): Name of the table's option.

    Raises:
        DataError: if there is no such split.
    """
    if isinstance(loaded, Dataset):
        if explicit:
            raise DataError(f"expected a source with splits before ':{splits[0]}', got the one table '{name}'.")
        return Source(name, [DatasetTable(loaded, name)])
    known = list(map(str, loaded))
    only = known if len(known) == 1 and not explicit else []
    for split in (*splits, *only):
        if split in loaded:
            told = _told_split(name, split, wanted, split if explicit else None)
            return Source(name, [DatasetTable(loaded[split], name)], told)
    raise DataError(
        f"expected the split '{splits[0]}' in '{name}', found {listed(known)}.{near_matches(splits[0], known)} Name "
        f"one of these as '{name}:{known[0]}' (or with split=)."
    )


def _saved_dataset(path: Path) -> Dataset | DatasetDict:
    try:
        return load_from_disk(str(path))
    except (OSError, ValueError, LookupError, TypeError, ImportError, pa.ArrowException) as error:
        try:
            return _stored(path)  # its format needs a library that is not here, or is older than this `datasets`
        except (OSError, ValueError, LookupError, TypeError, pa.ArrowException):
            raise DataError(
                f"expected a data set made by `save_to_disk` in '{path}', got {error}: save it again."
            ) from error


def _stored(path: Path) -> Dataset | DatasetDict:
    """Reads the Arrow files of a saved data set as they are stored, without its format."""
    if (path / "dataset_dict.json").exists():
        splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        return DatasetDict({split: _stored(path / split) for split in splits})  # pyright: ignore[reportArgumentType]
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    info = json.loads((path / "dataset_info.json").read_text(encoding="utf-8"))
    dataset = concatenate_datasets([Dataset.from_file(str(path / file["filename"])) for file in state["_data_files"]])
    if info.get("features"):
        dataset = dataset.cast(Features.from_dict(info["features"]))
    for file in state.get("_indices_data_files") or ():
        indices = Dataset.from_file(str(path / file["filename"]))
        return dataset.select(indices["indices"][:])
    return dataset


def _hub_dataset(name: str, splits: Sequence[str], revision: str | None, explicit: bool) -> tuple[Dataset, str]:
    """Returns the first of the splits that a data set on the Hub has, and its name."""
    try:
        known = list(map(str, get_dataset_split_names(name, revision=revision)))
    except Exception:  # without the network; the data set may be in the cache all the same
        known = []
    split = next((split for split in splits if split in known), splits[0])
    if split not in known and len(known) == 1 and not explicit:
        split = known[0]
    try:
        return load_dataset(name, split=split, revision=revision), split
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"expected a file, a folder, or the id of a data set on the Hub, got '{name}', which is neither here nor "
            f"could be loaded ({reason}): check the spelling, or save the data set to a folder and name that."
        ) from error
