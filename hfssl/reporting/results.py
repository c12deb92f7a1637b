"""Reading `results.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hfssl.reporting.formatting import signed_interval, signed_points

__all__ = ["gains_row_by_row", "kept_stage", "primary_split", "rows_of", "stage_title"]


STAGE_TITLES = {
    "labels_only": "Labels only",
    "adapted_backbone": "Pretext task",
    "pretext": "Pretext, then labels",
    "self_training": "Self-training",
    "refit": "Refit on all labels",
}


UNLABELED = "(unlabeled)"


def stage_title(stage: str) -> str:
    """`"self_training"` -> `"Self-training"`; names that we do not know are made readable."""
    return STAGE_TITLES.get(stage) or stage.replace("_", " ").capitalize()


def primary_split(results: Mapping[str, Any]) -> str | None:
    """`"test"` where any stage was measured on it, else `"validation"`, else `None`."""
    for split in ("test", "validation"):
        if any(stage["metrics"].get(split) for stage in results["stages"]):
            return split
    return None


def gains_row_by_row(results: Mapping[str, Any]) -> str | None:
    """One sentence on what each stage gained over labels only on the same test rows, where there are any."""
    gains = [
        f"{stage_title(stage)} {signed_points(found['gain'])} points "
        f"(95% interval {signed_interval(found['interval'])})"
        for stage, found in results.get("test_gains", {}).items()
    ]
    return f"Row by row on the test part, over labels only: {', '.join(gains)}." if gains else None


def kept_stage(results: Mapping[str, Any], split: str | None = None) -> str:
    """Stage of the model in `model/`; on a split whose rows a refit has learned from, the stage that it repeats."""
    kept = results.get("kept", results["chosen"])
    if split is None:
        return kept
    measured = any(stage["name"] == kept and stage["metrics"].get(split) for stage in results["stages"])
    return kept if measured else results["chosen"]


def rows_of(results: Mapping[str, Any], split: str, labeled_only: bool = True) -> int:
    """Number of rows of a split, without the unlabeled ones by default."""
    counts = results["data"]["counts"].get(split, {})
    return sum(number for name, number in counts.items() if not (labeled_only and name == UNLABELED))
