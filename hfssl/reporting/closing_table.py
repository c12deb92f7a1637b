"""Prints the table at the end of `hfssl fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hfssl.config.stages import stage_row
from hfssl.reporting.results import OUT_OF_FOLD, PARTS, final_stage
from hfssl.reporting.standing import BASELINE_TITLES
from hfssl.reporting.task_facts import Metric, task_facts

__all__ = ["closing_table"]


def closing_table(results: Mapping[str, Any]) -> str:
    """Formats the closing table of `hfssl fit`: one row per stage, in points, on test or else validation rows."""
    columns = task_facts(results).tabled
    measured = next((split for split in PARTS if _metrics(results, split)), None)
    if measured is None:
        title = "There were no labeled rows to measure on; give --test or --validation to see accuracies."
    else:
        rows = sum(results["data"]["counts"][measured].values())
        units = "in points (0-100)" if all(metric.in_points for metric in columns) else _units(columns)
        notes = [metric.note for metric in columns if metric.note]
        where = f"{rows:,} {measured} rows"
        if measured == OUT_OF_FOLD:
            where = f"the {rows:,} labeled rows, each by models trained without it"
        title = "; ".join([f"Measured on {where}, {units}", *notes]) + "."
    header = ["", *(metric.title for metric in columns), "seconds", ""]
    table = [header]
    for stage in results["stages"]:
        metrics = (stage["metrics"].get(measured) if measured else None) or {}
        numbers = [metric.shown(metrics.get(metric.name)) for metric in columns]
        kept = "<- final" if stage["name"] == final_stage(results) else ""
        table.append([stage_row(stage["name"]).model, *numbers, f"{stage['seconds']:.0f}", kept])
    for baseline in results.get("baselines", []):
        metrics = (baseline["metrics"].get(measured) if measured else None) or {}
        numbers = [metric.shown(metrics.get(metric.name)) for metric in columns]
        table.append([f"({BASELINE_TITLES[baseline['name']]})", *numbers, "", ""])
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = []
    for name, *numbers, kept in table:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True)]
        lines.append("  ".join(["", name.ljust(widths[0]), *cells, kept]).rstrip())
    return "\n".join([title, "", *lines])


def _units(columns: Sequence[Metric]) -> str:
    return f"{', '.join(metric.title for metric in columns if metric.in_points)} in points (0-100)"


def _metrics(results: Mapping[str, Any], split: str) -> list[Mapping[str, float]]:
    return [stage["metrics"][split] for stage in results["stages"] if stage["metrics"].get(split)]
