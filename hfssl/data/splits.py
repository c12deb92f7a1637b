"""Splits data into `labeled`, `unlabeled`, `validation`, `proxy` and `test`, with a manifest of every row.

This module converts tables to arrays and back and writes the manifest; `assignment.py` assigns rows to parts.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets

from hfssl.data.assignment import (
    EXTRA,
    MAIN,
    ROLES,
    TEST_TABLE,
    VALIDATION_TABLE,
    Assignment,
    RowTable,
    SplitOptions,
    assign_roles,
)
from hfssl.data.audit import (
    MANIFEST_SCHEMA_VERSION,
    conflict_warnings,
    fingerprints,
    inspect_texts,
    load_manifest,
    part_fingerprint,
    truncation_warnings,
)
from hfssl.data.duplicates import PAIR_SEPARATOR, exact_key, near_duplicate_components
from hfssl.data.label_column import LabelColumn
from hfssl.errors import ConfigurationError, DataError, near_matches
from hfssl.runtime.files import atomic_directory, write_json
from hfssl.runtime.ledger import check_seal, seal
from hfssl.runtime.progress import library_bars

__all__ = ["SemiSupervisedSplits", "few_label_splits"]

MANIFEST_FILE = "manifest.json"
NO_LABEL_NAME = "(unlabeled)"
TABLE_NAMES = {MAIN: "dataset", EXTRA: "unlabeled", VALIDATION_TABLE: "validation", TEST_TABLE: "test"}
HIDDEN = ("unlabeled", "proxy")  # parts whose labels are hidden
NOTABLE_LOSS = 0.1  # share of training rows left out as duplicates of held-out rows that causes a warning


class SemiSupervisedSplits(DatasetDict):
    """Holds `labeled`, `unlabeled`, `validation`, `proxy` and `test`, each with the columns of `load_table`.

    A part may be empty. In `unlabeled` and `proxy` the label is -1, and a further column `hidden_label` holds the true
    label where it is known, else -1. It is used only to report the quality of pseudo-labels.

    Args:
        manifest (`Mapping[str, Any]`): `schema_version`, `seed`, `options`, `label_names`, `counts` (by part and label
            name), `roles` (for each part the `ids` and `fingerprints` of its rows), `part_fingerprints` (for each part
            one of all its texts and labels), `removed` (rows left out, by reason) and `warnings`.
    """

    manifest: dict[str, Any]

    def __init__(self, parts: Mapping[str, Dataset], manifest: Mapping[str, Any]):
        super().__init__(parts)  # pyright: ignore[reportArgumentType, reportCallIssue]
        self.manifest = dict(manifest)

    @property
    def label_names(self) -> list[str]:
        """Returns the `[K]` class names."""
        return list(self.manifest["label_names"])

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the parts as `save_to_disk` does, with `manifest.json` next to them, atomically."""
        with atomic_directory(directory) as folder, library_bars(sum(map(len, self.values()))):
            # datasets 5.2 writes no shard for an empty part and then cannot load it, so one is requested.
            self.save_to_disk(str(folder), num_shards=dict.fromkeys(self, 1))  # pyright: ignore[reportArgumentType]
            write_json(folder / MANIFEST_FILE, self.manifest)
            seal(folder)

    @classmethod
    def load(cls, directory: str | os.PathLike) -> SemiSupervisedSplits:
        """Reads what `save` wrote.

        Raises:
            DataError: if the folder does not hold saved splits.
            DamagedFile: if a file is not as `save` wrote it.
        """
        check_seal(directory)
        manifest = load_manifest(Path(directory) / MANIFEST_FILE)
        try:
            parts = DatasetDict.load_from_disk(str(directory))
        except (OSError, ValueError, LookupError) as error:
            raise DataError(f"expected saved splits in '{directory}', got {error}: make the splits again.") from error
        return cls(parts, manifest)  # pyright: ignore[reportArgumentType]


def few_label_splits(
    dataset: Dataset,
    *,
    labels_per_class: int | None = None,
    test: Dataset | None = None,
    validation: Dataset | None = None,
    unlabeled: Dataset | None = None,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.2,
    proxy_fraction: float = 0.1,
    max_unlabeled: int | None = None,
    max_test: int | None = None,
    group: bool = True,
    seed: int = 0,
    label_column: LabelColumn | None = None,
    notices: Sequence[str] = (),
    view_columns: Sequence[str] = (),
) -> SemiSupervisedSplits:
    """Makes the five parts from tables that `load_table` returned.

    Without `labels_per_class` each labeled row stays labeled, and there is a test part only if `test` is given. With
    it, a fully labeled table simulates the few-label case: a stratified test part is cut off (unless `test` is given),
    K rows per class stay labeled, and the others join the pool with hidden labels.

    Unless `validation` is given, a share `validation_fraction` of the labeled rows of each class (also of the K)
    becomes `validation`, if that makes at least two rows in every class, or ten in all; else `validation` stays empty.
    `fit` holds none back by default and judges by folds of the labels instead. Exact duplicates among
    training rows are collapsed to one. Exact and near duplicates of held-out rows, and rows of their groups, are left
    out of training; `test` goes before `validation`, and `validation` before `proxy`. Labeled rows at K per class are
    nested in those at any larger K; `assignment.py` gives the details. A class with a single label is trained on, with
    a warning; a class with fewer labels than `labels_per_class` is an error.

    Args:
        dataset (`Dataset`): Training table: labeled rows, unlabeled rows (label -1), or both.
        labels_per_class (`int`, *optional*): Label budget K per class, `validation` included.
        test (`Dataset`, *optional*): Held-out labeled rows; rows without a label are left out.
        validation (`Dataset`, *optional*): Labeled rows for model selection.
        unlabeled (`Dataset`, *optional*): More rows for the pool; their labels, if any, are hidden.
        test_fraction (`float`, defaults to `0.2`): Share of the labeled rows of each class that is cut off as `test`,
            in [0, 1).
        validation_fraction (`float`, defaults to `0.2`): Share of the labeled rows of each class that is held out as
            `validation`, in [0, 0.5]; 0 for none.
        proxy_fraction (`float`, defaults to `0.1`): Share of the pool that becomes `proxy`, in [0, 1).
        max_unlabeled (`int`, *optional*): Largest number of rows in `unlabeled` and `proxy` together.
        max_test (`int`, *optional*): Largest number of rows in `test`, stratified.
        group (`bool`, defaults to `True`): Whether rows with the same `group` stay on one side.
        seed (`int`, defaults to `0`): Random seed of the parts; the same seed and tables give the same parts.
        label_column (`LabelColumn`, *optional*): Layout and strata of the labels in the column `label`. Default: one
            class per row.
        notices (`Sequence[str]`, defaults to `()`): What was assumed in reading the tables, for the warnings.
        view_columns (`Sequence[str]`, defaults to `()`): Columns with other texts of a row, which are kept; a table
            without one has empty texts there.

    Raises:
        ConfigurationError: if an option is out of range; all such problems are reported at once.
        DataError: if there are no labels or only one class, if `validation` or `test` has a label that no training row
            has, if a class has fewer rows than `labels_per_class`, or if all labeled rows of a class repeat held-out
            rows.

    Example:
        >>> import hfssl
        >>> splits = hfssl.few_label_splits(hfssl.load_table(table), labels_per_class=4)
        >>> len(splits["labeled"]), len(splits["test"])
        (8, 4)
    """
    options = SplitOptions(
        labels_per_class, test_fraction, validation_fraction, proxy_fraction, max_unlabeled, max_test, seed
    )
    _check_options(options)
    tables = _Tables.joined(
        {MAIN: dataset, EXTRA: unlabeled, VALIDATION_TABLE: validation, TEST_TABLE: test},
        LabelColumn() if label_column is None else label_column,
        view_columns,
    )
    _check_labels(tables)
    rows = _row_table(tables, group)
    assignment = assign_roles(rows, options)

    parts = {role: tables.part(np.flatnonzero(assignment.role == n), role) for n, role in enumerate(ROLES)}
    _check_trainable(tables, parts["labeled"])
    warnings = [*notices, *_warnings(tables, rows, assignment, parts, validation_fraction)]
    roles = {role: {"ids": part["id"][:], "fingerprints": fingerprints(part)} for role, part in parts.items()}
    manifest = {
        "schema_version": MANIFEST_SCHEMA_VERSION,
        "seed": seed,
        "options": asdict(options) | {"group": group},
        "label_names": tables.label_names,
        "counts": {role: _counts(part, tables) for role, part in parts.items()},
        "roles": roles,
        "part_fingerprints": {role: tables.fingerprint(parts[role], roles[role]["fingerprints"]) for role in ROLES},
        "removed": dict(sorted(assignment.removed.items())),
        "warnings": warnings,
    }
    return SemiSupervisedSplits(parts, manifest)


@dataclass
class _Tables:
    """Holds the given tables, one after the other, as plain columns."""

    columns: dict[str, list[Any]]
    source: np.ndarray  # [N]
    label_names: list[str]
    labels: LabelColumn

    @classmethod
    def joined(cls, tables: Mapping[int, Dataset | None], labels: LabelColumn, views: Sequence[str] = ()) -> _Tables:
        """Joins the rows of all tables, one after the other; each table must match the main one."""
        given = {source: table for source, table in tables.items() if table is not None}
        for source, table in given.items():  # pyright: ignore[reportAssignmentType]
            _check_table(table, TABLE_NAMES[source], labels, with_pair="text_pair" in given[MAIN].column_names)  # pyright: ignore[reportArgumentType]
        label_names = labels.names(given[MAIN].features["label"]) or []
        grouped = any("group" in table.column_names for table in given.values())
        columns: dict[str, list[Any]] = {}
        source: list[int] = []
        for number, table in given.items():
            own = _own_columns(table, TABLE_NAMES[number], label_names, grouped, labels)
            own |= {name: table[name][:] if name in table.column_names else [""] * len(table) for name in views}
            if number == EXTRA and not set(own["id"]).isdisjoint(columns["id"]):
                own["id"] = [f"unlabeled:{name}" for name in own["id"]]  # both tables number their rows from 0
            for column, values in own.items():
                columns.setdefault(column, []).extend(values)
            source += [number] * len(table)
        return cls(columns, np.array(source, dtype=np.int64), label_names, labels)

    def classes_of(self, *sources: int) -> Counter[int]:
        """Returns class number -> number of labeled rows of these tables with that class."""
        labels = zip(self.columns["label"], self.source.tolist(), strict=True)
        return Counter(c for label, source in labels if source in sources for c in self.labels.classes(label))

    def fingerprint(self, part: Dataset, of_texts: Sequence[str]) -> str:
        """Returns a fingerprint of the texts and labels of a part."""
        named = ["\x1f".join(self.label_names[c] for c in self.labels.classes(y)) for y in part["label"][:]]
        return part_fingerprint(of_texts, named)

    def part(self, rows: np.ndarray, role: str) -> Dataset:
        """Returns the rows as a data set; the role decides whether labels are hidden."""
        features = {column: Value("string") for column in self.columns}
        features |= {"label": self.labels.feature(self.label_names), "truncated": Value("bool")}
        columns = {column: [values[row] for row in rows] for column, values in self.columns.items()}
        if role in HIDDEN:
            columns["hidden_label"], features["hidden_label"] = columns["label"], features["label"]
            columns["label"] = [self.labels.missing] * len(rows)
        return Dataset.from_dict(columns, features=Features(features))


def _check_table(table: Dataset, name: str, labels: LabelColumn, with_pair: bool) -> None:
    if not {"text", "label"} <= set(table.column_names) or labels.names(table.features["label"]) is None:
        raise DataError(
            f"expected `{name}` to have a column `text` and a `ClassLabel` column `label`, got the columns "
            f"{', '.join(table.column_names)}: load it with load_table."
        )
    if with_pair != ("text_pair" in table.column_names):
        raise DataError(
            f"expected a second text in all tables or in none, got one in only one of `dataset` and `{name}`: load "
            "both with the same text_pair_column."
        )


def _own_columns(
    table: Dataset, name: str, label_names: list[str], grouped: bool, labels: LabelColumn
) -> dict[str, list[Any]]:
    size, known = len(table), set(table.column_names)
    columns = {"text": table["text"][:]}
    if "text_pair" in known:
        columns["text_pair"] = table["text_pair"][:]
    columns["label"] = _translated(table, name, label_names, labels)
    if grouped:
        columns["group"] = table["group"][:] if "group" in known else [""] * size
    columns["id"] = list(map(str, table["id"][:] if "id" in known else range(size)))
    columns["truncated"] = table["truncated"][:] if "truncated" in known else [False] * size
    return columns


def _translated(table: Dataset, name: str, label_names: list[str], labels: LabelColumn) -> list[Any]:
    """Returns labels as positions in `label_names`: two files may number the same class names differently."""
    index = {label: position for position, label in enumerate(label_names)}
    own = labels.names(table.features["label"]) or []
    position = [index.get(label, -1) for label in own]
    values = table["label"][:]
    if name in (TABLE_NAMES[VALIDATION_TABLE], TABLE_NAMES[TEST_TABLE]):
        strange = Counter(c for value in values for c in labels.classes(value) if position[c] < 0)
        for label, count in strange.most_common(1):
            raise _never_labeled(own[label], count, name, label_names)
    return [labels.renumbered(value, position) for value in values]


def _never_labeled(label: str, count: int, table: str, known: Sequence[str]) -> DataError:
    return DataError(
        f"expected `{table}` to hold only labels that training rows have, got '{label}' in {count} of its rows."
        f"{near_matches(label, known)} Label training rows as '{label}', or remove these rows from `{table}`."
    )


def _check_options(options: SplitOptions) -> None:
    problems = []
    if options.labels_per_class is not None and options.labels_per_class < 1:
        problems.append(f"expected labels_per_class of at least 1, got {options.labels_per_class}.")
    for name, value in (("test_fraction", options.test_fraction), ("proxy_fraction", options.proxy_fraction)):
        if not 0 <= value < 1:
            problems.append(f"expected {name} in [0, 1), got {value}.")
    if not 0 <= options.validation_fraction <= 0.5:
        problems.append(f"expected validation_fraction in [0, 0.5], got {options.validation_fraction}.")
    for name, value in (("max_unlabeled", options.max_unlabeled), ("max_test", options.max_test)):
        if value is not None and value < 1:
            problems.append(f"expected {name} of at least 1, or None for no bound, got {value}.")
    if options.seed < 0:
        problems.append(f"expected a seed of 0 or more, got {options.seed}.")
    if problems:
        raise ConfigurationError(problems)


def _check_labels(tables: _Tables) -> None:
    classes = tables.classes_of(MAIN)
    rows = int(np.sum(tables.source == MAIN))
    if len(classes) == 0:
        raise DataError(
            f"expected some labeled rows, got {rows} rows without a label (missing, empty, null and -1 all mean "
            "unlabeled): label a few rows of each class, or check the name of the label column."
        )
    if len(classes) == 1:
        (only, count) = next(iter(classes.items()))
        raise DataError(
            f"expected labels of at least two classes, got only '{tables.label_names[only]}' in {count} "
            "rows (missing, empty, null and -1 all mean unlabeled): label rows of another class."
        )
    for source in (VALIDATION_TABLE, TEST_TABLE):
        for label, count in tables.classes_of(source).most_common():
            if label not in classes:
                known = [tables.label_names[c] for c in sorted(classes)]
                raise _never_labeled(tables.label_names[label], count, TABLE_NAMES[source], known)


def _check_trainable(tables: _Tables, labeled: Dataset) -> None:
    trained = {c for label in labeled["label"][:] for c in tables.labels.classes(label)}
    lost = sorted(set(tables.classes_of(MAIN)) - trained)
    if lost:
        raise DataError(
            f"expected labeled training rows of every class, got none of '{tables.label_names[lost[0]]}' once rows "
            "that repeat held-out rows, share their group or have no text are left out: label others of that class."
        )


def _row_table(tables: _Tables, group: bool) -> RowTable:
    texts, pairs = tables.columns["text"], tables.columns.get("text_pair")
    keys = map(exact_key, texts) if pairs is None else map(exact_key, texts, pairs)
    numbers: dict[str, int] = {}
    exact = [numbers.setdefault(key, len(numbers)) if _has_content(key) else -1 for key in keys]
    near = near_duplicate_components(texts, pairs)
    units = near
    if group and "group" in tables.columns:
        # Rows without a group form units by their near duplicates; N + g separates the numbers of groups from those.
        groups: dict[str, int] = {}
        numbered = [groups.setdefault(name, len(groups)) if name.strip() else -1 for name in tables.columns["group"]]
        units = np.where(np.array(numbered) >= 0, len(near) + np.array(numbered), near)
    strata = tables.labels.strata(tables.columns["label"])
    return RowTable(
        label=strata,
        source=tables.source,
        exact=np.array(exact, dtype=np.int64),
        near=near,
        unit=units,
        label_names=tables.labels.stratum_names(tables.label_names, strata),
    )


def _counts(part: Dataset, tables: _Tables) -> dict[str, int]:
    labels = part["label"][:]
    return tables.labels.counts(labels, tables.label_names) | {
        NO_LABEL_NAME: sum(not tables.labels.is_labeled(label) for label in labels)
    }


def _warnings(
    tables: _Tables, rows: RowTable, assignment: Assignment, parts: Mapping[str, Dataset], fraction: float
) -> list[str]:
    looked_at = ["text", "label"]
    training = [part.select_columns(looked_at) for role, part in parts.items() if role != "test"]
    warnings = inspect_texts(concatenate_datasets(training), tables.label_names, tables.labels)
    warnings += truncation_warnings(sum(tables.columns["truncated"]), len(rows.label))
    removed = assignment.removed
    if removed["empty_text"]:
        warnings.append(f"{removed['empty_text']} training rows have an empty text and were left out.")
    named = [rows.label_names[label] if label >= 0 else "" for label in rows.label]
    warnings += conflict_warnings(assignment.conflicts, tables.columns["id"], named)  # pyright: ignore[reportArgumentType]
    lost = sum(count for reason, count in removed.items() if reason.startswith(("duplicate_of_", "group_of_")))
    if lost > NOTABLE_LOSS * np.sum((rows.source == MAIN) | (rows.source == EXTRA)):
        warnings.append(
            f"{lost} rows were left out because they repeat held-out rows or belong to their groups; check that the "
            "tables are not copies of one another."
        )
    same = removed["exact_duplicate"]
    if same > NOTABLE_LOSS * np.sum((rows.source == MAIN) | (rows.source == EXTRA)):
        warnings.append(
            f"{same} training rows repeat another one's text and were left out, so that each text counts once; check "
            "how the table was made if you expected fewer."
        )
    if not len(parts["validation"]) and fraction:
        warnings.append(
            f"there is no validation part, as {fraction:.0%} of the labels are too few rows: label more rows of "
            "each class, or give a table of them."
        )
    if not len(parts["unlabeled"]):
        warnings.append("there are no unlabeled rows, so nothing can be gained beyond the labels; add some.")
    elif not len(parts["proxy"]):
        warnings.append(
            "there is no proxy part: the pool is too small, or its groups are too large, to set rows apart."
        )
    if len(parts["test"]):
        held_out = {c for label in parts["test"]["label"][:] for c in tables.labels.classes(label)}
        trained = {c for label in parts["labeled"]["label"][:] for c in tables.labels.classes(label)}
        absent = sorted(trained - held_out)
        warnings += [f"the class '{tables.label_names[c]}' has no row in the test part." for c in absent]
    return warnings


def _has_content(key: str) -> bool:
    return bool(key.strip(PAIR_SEPARATOR))
