"""What is read from the folder of a run of `fit`, and which of its logits are kept for `replay.py`.

A kept file is an `.npz`: `folds/MEMBER/PART` for each member of the ensemble of teachers, `stages/STAGE/PART` for each
stage, as float16 with the largest logit of each row moved to 0; `folds/weights/MEMBER`, where the run has weights; and
`labels/PART`, true ones of the pool included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from hfssl.runtime.files import atomic_file

if TYPE_CHECKING:
    from hfssl.data.splits import SemiSupervisedSplits

__all__ = ["Kept", "keep_logits", "read_kept", "scored_test", "shipped_model", "stage_calibration"]

FOLDS, LOGITS = "hfssl.pipeline.stages.folds", "logits.npz"
IN_FOLDS = "folds/rows"  # numbers of the labeled rows that are in a fold, where not all are
LABEL_COLUMNS = {"labeled": "label", "validation": "label", "test": "label"}
LABEL_COLUMNS |= {"unlabeled": "hidden_label", "proxy": "hidden_label"}
MAX_POOL_VALUES = 100_000  # logits of a member on a part of the pool: 666 rows of clinc150, 1,298 of banking77
SAME = 1e-3  # calibration errors of the same predictions differ by less


@dataclass
class Kept:
    """The logits of one cell.

    Attributes:
        members: member -> part -> logits `[N, K]`; on `labeled` they are out of fold.
        stages: stage -> part -> logits `[N, K]`.
        weights: member -> weight in the mixture that the run had.
        labels: part -> `[N]` true labels, -1 where they are not known; of `labeled` those that are in a fold.
    """

    members: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    stages: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(default_factory=dict)


def scored_test(*, wanted: bool) -> AbstractContextManager[Any]:
    """Makes the teachers of the folds predict the test part, too, which `fit` alone has no use for."""
    if not wanted or find_spec(FOLDS) is None:
        return nullcontext()
    from importlib import import_module

    folds = import_module(FOLDS)
    return patch.object(folds, "SCORED_PARTS", (*(part for part in folds.SCORED_PARTS if part != "test"), "test"))


def _read(path: Path) -> dict[str, np.ndarray]:
    from hfssl.runtime.files import read_arrays

    return read_arrays(path) if path.exists() else {}


def _stage_logits(run: Path, stage: str, part: str) -> np.ndarray | None:
    return _read(run / "stages" / stage / LOGITS).get(part)


def _labels(splits: SemiSupervisedSplits, part: str) -> np.ndarray:
    return np.asarray(splits[part][LABEL_COLUMNS[part]][:], dtype=np.int64)


# --- measured from the folder ----------------------------------------------------------------------------------------


def stage_calibration(run: Path, splits: SemiSupervisedSplits, stages: Sequence[str]) -> dict[str, float]:
    """Stage -> debiased calibration error on the test part, of those that have left their logits."""
    from scipy.special import softmax

    from hfssl.metrics.calibration import debiased_ece

    labels, found = _labels(splits, "test"), {}
    for stage in stages:
        logits = _stage_logits(run, stage, "test")
        if logits is not None and len(logits) == len(labels) > 0:
            found[stage] = debiased_ece(softmax(logits.astype(np.float64), axis=1), labels)
    return found


def shipped_model(run: Path, splits: SemiSupervisedSplits, results: Mapping[str, Any]) -> dict[str, Any]:
    """How the model that is handed over does on the test part.

    Returns:
        `debiased_ece`, and `shipped` with its `gain` in accuracy over labels only and `p_worse`, the p-value of
        McNemar's exact test that it is worse. Each is `None` where the run has not left the logits of that very model.
    """
    from scipy.special import softmax

    from hfssl.config.stages import LABELS_ONLY
    from hfssl.metrics.calibration import debiased_ece, expected_calibration_error
    from hfssl.metrics.significance import sign_test

    final, base = (_stage_logits(run, stage, "test") for stage in (results["final_stage"], LABELS_ONLY))
    labels, error = _labels(splits, "test"), results["final_metrics"]["test"]["ece"]
    outcome: dict[str, Any] = {"debiased_ece": None, "shipped": None}
    if final is None or len(final) != len(labels):
        return outcome
    probs = softmax(final.astype(np.float64) / (results["temperature"] or 1.0), axis=1)
    if abs(expected_calibration_error(probs, labels) - error) > SAME:
        return outcome
    outcome["debiased_ece"] = debiased_ece(probs, labels)
    if base is not None:
        right = [table.argmax(axis=1) == labels for table in (base, final)]
        gain = float(right[1].mean() - right[0].mean())
        outcome["shipped"] = {"gain": gain, "p_worse": sign_test(*right)}
    return outcome


# --- kept for replay.py ----------------------------------------------------------------------------------------------


def keep_logits(run: Path, splits: SemiSupervisedSplits, path: Path) -> None:
    """Writes what there is of logits in the folder of a run, with the labels of their rows."""
    num_classes = len(splits.label_names)
    arrays: dict[str, np.ndarray] = {}
    for folder in sorted((run / "stages").glob("*/")):
        for name, values in _read(folder / LOGITS).items():
            key = f"folds/{name}" if folder.name == "folds" else f"stages/{folder.name}/{name}"
            part = name.rpartition("/")[2]
            if part in LABEL_COLUMNS and values.ndim == 2:
                arrays[key] = _halved(values)[_kept_rows(part, len(values), num_classes)]
            else:
                arrays[key] = values
    for part in LABEL_COLUMNS:
        labels = _labels(splits, part)
        arrays[f"labels/{part}"] = labels[_kept_rows(part, len(labels), num_classes)].astype(np.int16)
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def _halved(logits: np.ndarray) -> np.ndarray:
    """As float16, with the largest of each row moved to 0, where the format is the finest."""
    moved = logits.astype(np.float32) - logits.max(axis=1, keepdims=True)
    return moved.clip(np.finfo(np.float16).min).astype(np.float16)


def _kept_rows(part: str, rows: int, num_classes: int) -> slice:
    """All rows; of a pool with many classes every second, every third, ..."""
    most = max(1, MAX_POOL_VALUES // num_classes)
    return slice(None, None, -(-rows // most) if part in ("unlabeled", "proxy") and rows > most else 1)


def read_kept(path: Path) -> Kept:
    """Reads what `keep_logits` wrote; logits are float64.

    A member's part is left out where its rows are not those of the labels: nothing could be measured on it.
    """
    kept, arrays = Kept(), {}
    if path.exists():
        with np.load(path) as saved:
            arrays = dict(saved)
    kept.labels = {name[7:]: values.astype(np.int64) for name, values in arrays.items() if name.startswith("labels/")}
    if (rows := arrays.get(IN_FOLDS)) is not None:
        kept.labels["labeled"] = kept.labels["labeled"][rows]
    for key, values in arrays.items():
        group, _, rest = key.partition("/")
        name, _, part = rest.rpartition("/")
        if name == "weights":
            kept.weights[part] = float(values)
        elif group in ("folds", "stages") and len(values) == len(kept.labels.get(part, ())):
            place = kept.members if group == "folds" else kept.stages
            place.setdefault(name, {})[part] = values.astype(np.float64)
    return kept
