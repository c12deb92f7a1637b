"""Proves that no stage trained on `validation`, `proxy` or `test`, and warns of likely mistakes in the texts.

A row's *fingerprint* is a hash of its normalised text (see `duplicates.exact_key`), so a leaked row is found even with
another id, case or spacing. The manifest of the splits lists the fingerprints of every part, and each stage records
the fingerprints of its training rows. `audit` compares the two and does not need the data. Fingerprints do not reveal
near duplicates: `few_label_splits` separates them when it makes the parts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset

from hfssl.data.duplicates import exact_key
from hfssl.data.label_column import LabelColumn
from hfssl.data.scripts import dominant_script
from hfssl.errors import DataError

__all__ = [
    "AuditReport",
    "audit",
    "conflict_warnings",
    "evidence_manifest",
    "fingerprint",
    "inspect_texts",
    "load_manifest",
    "part_fingerprint",
    "released",
    "training_manifest",
    "truncation_warnings",
]

MANIFEST_SCHEMA_VERSION = 1
TRAINING_ROLES = ("labeled", "unlabeled")
HELD_OUT_ROLES = ("validation", "proxy", "test")
SCRIPT_SAMPLE = 2000  # largest number of labeled and of unlabeled texts that are examined
COMMON_SCRIPT = 0.05  # a script is expected from this share of labeled texts on
EVIDENCE = "evidence"  # role of rows that judge a model
OTHER_SCRIPT_SHARE = 0.2  # share of unlabeled texts in another script that causes a warning


def fingerprint(text: str, text_pair: str | None = None) -> str:
    """Returns the BLAKE2b-128 hash of the normalised text or pair of texts, as 32 hexadecimal digits."""
    key = exact_key(text, text_pair).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(key, digest_size=16).hexdigest()


def fingerprints(dataset: Dataset) -> list[str]:
    """Returns the fingerprint of each row, `[N]`, of a data set with `text` and, optionally, `text_pair`."""
    if "text_pair" in dataset.column_names:
        return list(map(fingerprint, dataset["text"][:], dataset["text_pair"][:]))
    return list(map(fingerprint, dataset["text"][:]))


def part_fingerprint(of_rows: Sequence[str], labels: Sequence[str]) -> str:
    """Returns the BLAKE2b-128 hash of a part's texts and labels, in any order of rows, as 32 hexadecimal digits.

    Args:
        of_rows (`Sequence[str]`): `[N]` fingerprints of the rows' texts.
        labels (`Sequence[str]`): `[N]` labels by name, `""` for an unlabeled row.

    Example:
        >>> part_fingerprint(["a", "b"], ["x", "y"]) == part_fingerprint(["b", "a"], ["y", "x"])
        True
        >>> part_fingerprint(["a", "b"], ["x", "y"]) == part_fingerprint(["a", "b"], ["y", "x"])
        False
    """
    rows = sorted(f"{key} {label!r}" for key, label in zip(of_rows, labels, strict=True))
    return hashlib.blake2b("\n".join(rows).encode(), digest_size=16).hexdigest()


def training_manifest(
    stage: str, dataset: Dataset, role: str, *, model: str | None = None, taught_by: Sequence[str] = ()
) -> dict[str, Any]:
    """Describes the training rows of one model as a dict that JSON can hold.

    Args:
        stage (`str`): Name of the stage, as in `results.json`.
        dataset (`Dataset`): Training rows of the model, with their `text` (and `text_pair`) columns.
        role (`str`): Part that these rows should belong to: `labeled` or `unlabeled`.
        model (`str`, *optional*): Name of the model. Default: that of the stage.
        taught_by (`Sequence[str]`, defaults to `()`): Names of the models that gave these rows their pseudo-labels.
    """
    manifest = {
        "schema_version": MANIFEST_SCHEMA_VERSION,
        "stage": stage,
        "role": role,
        "fingerprints": fingerprints(dataset),
    }
    more = {"model": model, "taught_by": list(taught_by)}
    return manifest | {name: value for name, value in more.items() if value}


def evidence_manifest(stage: str, dataset: Dataset, *, model: str) -> dict[str, Any]:
    """Describes rows of which a model's predictions are evidence: their labels must be new to it.

    Args:
        stage (`str`): Name of the stage, as in `results.json`.
        dataset (`Dataset`): The rows, with their `text` (and `text_pair`) columns.
        model (`str`): Name of the model, as in its `training_manifest`.
    """
    return training_manifest(stage, dataset, EVIDENCE, model=model)


@dataclass
class AuditReport:
    """Holds the result of `audit`.

    Args:
        stages (`list[str]`): Stages that were compared with the splits.
        leaks (`list[dict[str, Any]]`): One `{"stage", "role", "fingerprint", "row"}` for each held-out row that a
            stage trained on: `role` is the part of the row and `row` its id. The stage `splits` means that the parts
            themselves overlap.
        unknown (`list[dict[str, Any]]`): One `{"stage", "role", "fingerprint", "row"}` for each training row that is
            in no part, so that its origin cannot be checked: `row` is its position in the stage's training rows,
            `role` its use.
        partial (`list[dict[str, Any]]`): One `{"stage", "model", "fingerprint", "row"}` for each row that a model is
            judged by although it, or a model that gave it pseudo-labels, has learned its label: `row` is its position
            among the rows that judge the model.
    """

    stages: list[str]
    leaks: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[dict[str, Any]] = field(default_factory=list)
    partial: list[dict[str, Any]] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Returns whether every training row is a known one, and every model is judged by labels new to it."""
        return not self.leaks and not self.unknown and not self.partial

    def raise_if_leaky(self) -> None:
        """Raises an error unless the report is clean.

        Raises:
            DataError: if a stage trained on held-out or on unknown rows, or a model is judged by labels that it has
                seen; the message names the first of them.
        """
        if self.leaks:
            named = _first([f"{leak['role']} row {leak['row']} in stage '{leak['stage']}'" for leak in self.leaks])
            raise DataError(
                f"expected no stage to train on validation, proxy or test rows, got {len(self.leaks)} leaked: {named}."
                " Make the splits again and train afresh: the scores of this run cannot be trusted."
            )
        if self.unknown:
            named = _first([f"row {row['row']} of stage '{row['stage']}'" for row in self.unknown])
            raise DataError(
                f"expected each stage to train on rows of the splits, got {len(self.unknown)} unknown ones: {named}. "
                "Train on the saved splits, or make the splits again with these rows."
            )
        if self.partial:
            named = _first([f"row {row['row']} of model '{row['model']}'" for row in self.partial])
            raise DataError(
                f"expected each model to be judged by labels that it has not seen, got {len(self.partial)} that it, "
                f"or a model that labeled its pool, has learned: {named}. The verdict of this run cannot be trusted: "
                "train afresh."
            )


def audit(manifests: Sequence[Mapping[str, Any] | str | os.PathLike]) -> AuditReport:
    """Compares the training rows of the stages with the parts of the data.

    Args:
        manifests (`Sequence[Mapping[str, Any] | str | os.PathLike]`): The manifest of the splits
            (`SemiSupervisedSplits.manifest`), followed by any number of `training_manifest`s; each a dict or the path
            of a JSON file.

    Raises:
        DataError: if a manifest is missing or invalid.

    Example:
        >>> import hfssl
        >>> splits = hfssl.few_label_splits(hfssl.load_table(table))
        >>> hfssl.audit([splits.manifest]).raise_if_leaky()
    """
    if not manifests:
        raise DataError("expected the manifest of the splits and those of the stages, got no manifest at all.")
    splits, *phases = [load_manifest(manifest) for manifest in manifests]
    if "roles" not in splits:
        raise DataError("expected the manifest of the splits first, got one without 'roles': put manifest.json first.")
    if any("fingerprints" not in phase for phase in phases):
        raise DataError("expected training manifests after that of the splits, got one without 'fingerprints'.")
    held_out: dict[str, list[tuple[str, str]]] = {}
    for role in HELD_OUT_ROLES:
        part = splits["roles"][role]
        for key, row in zip(part["fingerprints"], part["ids"], strict=True):
            held_out.setdefault(key, []).append((role, row))
    allowed = {key for role in TRAINING_ROLES for key in splits["roles"][role]["fingerprints"]}

    own_rows = [{"stage": "splits", "role": r, **splits["roles"][r]} for r in TRAINING_ROLES]
    report = AuditReport(stages=list(dict.fromkeys(phase["stage"] for phase in phases)))
    report.partial = _partial_judges(phases)
    for phase in (*own_rows, *(phase for phase in phases if phase["role"] != EVIDENCE)):
        seen: set[str] = set()
        for position, key in enumerate(phase["fingerprints"]):
            if key in held_out and key not in seen:
                for role, row in held_out[key]:
                    report.leaks.append({"stage": phase["stage"], "role": role, "fingerprint": key, "row": row})
            elif key not in allowed and key not in seen:
                report.unknown.append(
                    {"stage": phase["stage"], "role": phase["role"], "fingerprint": key, "row": position}
                )
            seen.add(key)
    return report


def _partial_judges(phases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows that judge a model whose label it has learned, itself or through a model that taught it."""
    labels: dict[str, set[str]] = {}
    teachers: dict[str, set[str]] = {}
    for phase in phases:
        name = phase.get("model", phase["stage"])
        if phase["role"] == "labeled":
            labels.setdefault(name, set()).update(phase["fingerprints"])
        teachers.setdefault(name, set()).update(phase.get("taught_by", ()))
    found = []
    for phase in phases:
        if phase["role"] != EVIDENCE:
            continue
        known, open_models, visited = set(), [phase["model"]], set()
        while open_models:
            name = open_models.pop()
            if name not in visited:
                visited.add(name)
                known |= labels.get(name, set())
                open_models += teachers.get(name, ())
        where = {"stage": phase["stage"], "model": phase["model"]}
        rows = enumerate(phase["fingerprints"])
        found += [where | {"fingerprint": key, "row": row} for row, key in rows if key in known]
    return found


def released(manifest: Mapping[str, Any], role: str) -> dict[str, Any]:
    """Returns the manifest of the splits after the rows of a held-out part have become labeled rows.

    After the verdict on `validation` rows, the selected model may be trained on them, too. Later measurements on these
    rows are invalid. `proxy` and `test` remain held out.
    """
    parts = {name: dict(part) for name, part in manifest["roles"].items()}
    for key, values in parts["labeled"].items():
        parts["labeled"][key] = [*values, *parts[role][key]]
        parts[role][key] = []
    return {**manifest, "roles": parts}


def load_manifest(manifest: Mapping[str, Any] | str | os.PathLike) -> Mapping[str, Any]:
    """Reads a manifest from a JSON file, or returns a given dict, and checks its version.

    Raises:
        DataError: if there is no such file, it is not JSON, or another version of hfssl wrote it.
    """
    name = "the manifest"
    if not isinstance(manifest, Mapping):
        name = f"'{os.fspath(manifest)}'"
        try:
            manifest = json.loads(Path(manifest).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"expected a manifest in {name}, got {error}: make the splits again.") from error
    version = manifest.get("schema_version") if isinstance(manifest, Mapping) else None
    if version != MANIFEST_SCHEMA_VERSION:
        raise DataError(
            f"expected schema_version {MANIFEST_SCHEMA_VERSION} in {name}, got {version}: make the splits again with "
            "this version of hfssl."
        )
    return manifest  # pyright: ignore[reportReturnType]


def inspect_texts(dataset: Dataset, label_names: Sequence[str], label_column: LabelColumn | None = None) -> list[str]:
    """Checks a table for likely mistakes and returns one sentence for each.

    Args:
        dataset (`Dataset`): Rows with the columns `text`, `label` (-1 = unlabeled) and, optionally, `truncated`.
        label_names (`Sequence[str]`): `[K]` names of the classes.
        label_column (`LabelColumn`, *optional*): Layout of the labels in the column `label`. Default: one class per
            row.

    Returns:
        Warnings about classes with no or one label, empty texts, cut texts, and unlabeled texts in another script
        (alphabet) than the labeled ones.

    Raises:
        DataError: if all texts are empty.
    """
    texts, labels = dataset["text"][:], dataset["label"][:]
    column = LabelColumn() if label_column is None else label_column
    empty = sum(not text.strip() for text in texts)
    if empty == len(texts):
        raise DataError(
            f"expected texts, got {len(texts)} rows whose text is empty: check the name of the text column."
        )
    warnings = _label_warnings(Counter(c for label in labels for c in column.classes(label)), label_names)
    if empty:
        warnings.append(f"{empty} of {len(texts)} texts are empty; nothing can be learned from them.")
    if "truncated" in dataset.column_names:
        warnings += truncation_warnings(sum(dataset["truncated"][:]), len(texts))
    labeled = [text for text, label in zip(texts, labels, strict=True) if column.is_labeled(label)]
    unlabeled = [text for text, label in zip(texts, labels, strict=True) if not column.is_labeled(label)]
    return warnings + _script_warnings(labeled, unlabeled)


def truncation_warnings(cut: int, total: int) -> list[str]:
    """Returns one sentence about the `cut` of `total` texts that the loader shortened; none if `cut` is 0."""
    if cut == 0:
        return []
    return [
        f"{cut:,} of {total:,} texts were longer than max_characters (20,000 by default) and were cut there; split "
        "such texts into parts if what matters stands at their end."
    ]


def conflict_warnings(conflicts: Sequence[Sequence[int]], ids: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Returns one sentence about texts with different labels; none if there are none.

    Args:
        conflicts (`Sequence[Sequence[int]]`): For each such text, the numbers of its rows.
        ids (`Sequence[str]`): `[N]` ids of all rows.
        labels (`Sequence[str]`): `[N]` names of their labels.
    """
    if not conflicts:
        return []
    shown = "; ".join(" and ".join(f"{ids[row]} ('{labels[row]}')" for row in same[:3]) for same in conflicts[:3])
    return [
        f"{len(conflicts)} texts occur with different labels, for example in the rows {shown}; the most frequent "
        "label of each was used. Correct them if they are mistakes."
    ]


def _label_warnings(rows: Counter[int], label_names: Sequence[str]) -> list[str]:
    warnings = []
    for number, name in enumerate(label_names):
        count = rows[number]
        if count == 0 and rows:
            warnings.append(f"the class '{name}' has no labeled row and will never be predicted rightly; label some.")
        if count == 1:
            warnings.append(
                f"the class '{name}' has one labeled row, from which little can be learned; label a few more."
            )
    return warnings


def _script_warnings(labeled: Sequence[str], unlabeled: Sequence[str]) -> list[str]:
    known, found = _script_shares(labeled), _script_shares(unlabeled)
    common = {script for script, share in known.items() if share >= COMMON_SCRIPT}
    foreign = {script: share for script, share in found.items() if script not in common}
    share = sum(foreign.values())
    if not common or share <= OTHER_SCRIPT_SHARE:
        return []
    largest = max(foreign, key=foreign.__getitem__)
    return [
        f"{share:.0%} of the unlabeled texts are in another script than the labeled ones (mostly {largest}, not "
        f"{' or '.join(sorted(common))}); check that the unlabeled table is the right one."
    ]


def _script_shares(texts: Sequence[str]) -> dict[str, float]:
    step = max(1, len(texts) // SCRIPT_SAMPLE)
    scripts = Counter(script for text in texts[::step] if (script := dominant_script(text)) is not None)
    return {script: count / scripts.total() for script, count in scripts.items()}


def _first(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
