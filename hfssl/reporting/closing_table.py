"""The table that ends `hfssl fit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hfssl.config.stages import stage_row
from hfssl.reporting.results import final_stage

__all__ = ["closing_table"]


def closing_table(results: Mapping[str, Any]) -> str:
    """The table that ends `hfssl fit`: one row a stage, in points (0-100), on test or else on validation rows."""
    measured = next((split for split in ("test", "validation") if _metrics(results, split)), None)
    if measured is None:
        title = "There were no labeled rows to measure on; give --test or --validation to see accuracies."
    else:
        rows = sum(results["data"]["counts"][measured].values())
        title = f"Measured on {rows:,} {measured} rows, in points (0-100); ECE is the calibration error."
    header = ["", "accuracy", "macro-F1", "ECE", "seconds", ""]
    table = [header]
    for stage in results["stages"]:
        metrics = (stage["metrics"][measured] if measured else None) or {}
        numbers = [f"{100 * metrics[key]:.1f}" if key in metrics else "-" for key in ("accuracy", "macro_f1", "ece")]
        kept = "<- kept" if stage["name"] == final_stage(results) else ""
        table.append([stage_row(stage["name"]).model, *numbers, f"{stage['seconds']:.0f}", kept])
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = []
    for name, *numbers, kept in table:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True)]
        lines.append("  ".join(["", name.ljust(widths[0]), *cells, kept]).rstrip())
    return "\n".join([title, "", *lines])


def _metrics(results: Mapping[str, Any], split: str) -> list[Mapping[str, float]]:
    return [stage["metrics"][split] for stage in results["stages"] if stage["metrics"].get(split)]
