"""How results are put into words and read from `results.json`; shared by the report and the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "duration",
    "gains_row_by_row",
    "kept_stage",
    "percent",
    "primary_split",
    "rows_of",
    "signed_interval",
    "signed_points",
    "stage_title",
]

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


def percent(value: float | None) -> str:
    """`0.8432` -> `"84.3"`; a dash where there is no number."""
    return "–" if value is None else f"{100 * value:.1f}"


def signed_points(value: float) -> str:
    """`-0.0124` -> `"−1.2"`, with a real minus sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def signed_interval(interval: Sequence[float]) -> str:
    """`[-0.012, 0.05]` -> `"−1.2 to +5.0"`."""
    low, high = interval
    return f"{signed_points(low)} to {signed_points(high)}"


def duration(seconds: float) -> str:
    """`3.2 s`, `4 min 5 s` or `2 h 7 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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
