"""Reads `results.json`, which `results.schema.json` describes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from hfssl.config.stages import stage_row
from hfssl.errors import ModelError
from hfssl.reporting.formatting import signed_interval, signed_points

__all__ = [
    "OUT_OF_FOLD",
    "PARTS",
    "RESULTS",
    "SCHEMA_VERSION",
    "final_stage",
    "gains_row_by_row",
    "older_version",
    "part_title",
    "primary_split",
    "read_results",
    "results_schema",
    "rows_of",
    "stage_title",
]


RESULTS, SCHEMA_VERSION = "results.json", 2
UNLABELED = "(unlabeled)"

OUT_OF_FOLD = "out_of_fold"
"""Name of the labeled rows in folds, where each was predicted by models that were trained without it."""

PARTS = ("test", "validation", OUT_OF_FOLD)
"""Names of the parts on which stages are measured, the one that says most first."""


def part_title(part: str) -> str:
    """Returns the name of a part in sentences: `"out_of_fold"` -> `"out-of-fold"`."""
    return part.replace("_", "-")


def stage_title(stage: str) -> str:
    """Returns the title of a stage: `"self_training"` -> `"Self-training"`, also for unlisted names."""
    return stage_row(stage).title


def read_results(folder: str | Path) -> dict[str, Any]:
    """Returns the content of `results.json` in the folder of a finished run of `fit`.

    Raises:
        ModelError: if the file cannot be read, or an older hfssl has written it.
    """
    path = Path(folder) / RESULTS
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"Expected '{path}' of a finished run, but it cannot be read: {error}.") from error
    if "stages" in results and results.get("schema_version") != SCHEMA_VERSION:
        raise ModelError(
            f"{older_version(folder, results)} Run hfssl fit again, or give '{Path(folder) / 'model'}' to use its "
            "model alone."
        )
    return results


def older_version(folder: str | Path, values: Mapping[str, Any]) -> str:
    """Returns the error message for a run folder with another schema version than that of this hfssl."""
    found = values.get("schema_version", 1)
    made_by = "an older" if found < SCHEMA_VERSION else "a newer"
    return (
        f"Expected a run of schema version {SCHEMA_VERSION} in '{folder}', but found version {found}, which {made_by} "
        "hfssl has written."
    )


def results_schema() -> dict[str, Any]:
    """Returns the JSON Schema of `results.json`.

    Example:
        >>> results_schema()["properties"]["schema_version"]["const"]
        2
    """
    path = files("hfssl.reporting").joinpath("results.schema.json")
    return json.loads(path.read_text(encoding="utf-8"))


def primary_split(results: Mapping[str, Any]) -> str | None:
    """Returns the first of `PARTS` on which any stage was measured, else `None`."""
    for split in PARTS:
        if any(stage["metrics"].get(split) for stage in results["stages"]):
            return split
    return None


def gains_row_by_row(results: Mapping[str, Any]) -> str | None:
    """Returns one sentence with each stage's gain over labels only on the same test rows, if there are any."""
    gains = [
        f"{stage_title(stage)} {signed_points(found['gain'])} points "
        f"(95% interval {signed_interval(found['interval'])})"
        for stage, found in results.get("test_gains", {}).items()
    ]
    return f"Row by row on the test part, over labels only: {', '.join(gains)}." if gains else None


def final_stage(results: Mapping[str, Any], split: str | None = None) -> str:
    """Returns the stage of the model in `model/`; on a split that a refit trained on, the stage it repeats."""
    final = results["final_stage"]
    if split is None:
        return final
    measured = any(stage["name"] == final and stage["metrics"].get(split) for stage in results["stages"])
    return final if measured else results["selected_stage"]


def rows_of(results: Mapping[str, Any], split: str, labeled_only: bool = True) -> int:
    """Returns the number of rows of a split, without the unlabeled ones by default."""
    counts = results["data"]["counts"].get(split, {})
    return sum(number for name, number in counts.items() if not (labeled_only and name == UNLABELED))
