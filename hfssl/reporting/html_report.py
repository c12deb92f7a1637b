"""Builds `report.html`: one self-contained file, readable without a network and without JavaScript."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hfssl.config.stages import stage_row
from hfssl.reporting import figures, sections
from hfssl.reporting.formatting import signed_interval, signed_points
from hfssl.reporting.good_enough import opening_sentences
from hfssl.reporting.results import final_stage, part_title, primary_split, rows_of, stage_title
from hfssl.reporting.sections import Section, Table
from hfssl.reporting.task_facts import task_facts
from hfssl.runtime.files import atomic_file

__all__ = ["build_report"]

# HTML allows no control characters except tab and line ends.
CONTROL_CHARACTERS = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127], "\ufffd")


def build_report(results: Mapping[str, Any], evidence: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Writes the report atomically.

    Args:
        results (`Mapping[str, Any]`): Content of `results.json`.
        evidence (`Mapping[str, Any]`): `curves` (stage -> records with `step` and `loss`, `eval_loss` where measured),
            `predictions` (`"test"` or `"validation"` -> `labels` `[N]` and `probs`, stage -> `[N, K]`, before any
            temperature), `rounds` (the records of `rounds.jsonl`), `examples` (`text`, `label`, `predicted`,
            `probability`; labels as names or indices) and `warnings`. Any part may be missing or empty; its section
            then names the reason. In addition to `probs`, `predicted` holds decisions (stage -> `[N]`) that are not
            the most probable class, and `classes` holds the K names of the decisions where these are not the label
            names.
        path (`str | os.PathLike`): File to write.
    """
    # Autoescape shows a text like "<script>" in the data literally.
    environment = Environment(
        loader=PackageLoader("hfssl.reporting", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    html = environment.get_template("report.html").render(
        verdict=results["verdict"],
        panel_width=round(100 * figures.PANEL_WIDTH),
        opening=opening_sentences(results),
        facts=_facts(results),
        sections=[
            sections.good_enough_section(results, evidence),
            sections.stages_section(results),
            sections.data_section(results, evidence),
            sections.curves_section(evidence),
            sections.rounds_section(results, evidence),
            sections.calibration_section(results, evidence),
            sections.confusion_section(results, evidence),
            sections.examples_section(results, evidence),
            _record_section(results),
        ],
    )
    with atomic_file(path) as temporary:
        # A lone surrogate in a text cannot be written as UTF-8; it is shown as a question mark.
        temporary.write_bytes(html.translate(CONTROL_CHARACTERS).encode("utf-8", "replace"))


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the numbers at the top of the report: (name, value, remark)."""
    verdict, split = results["verdict"], primary_split(results)
    labels = rows_of(results, "labeled")
    classes = len(results["data"]["label_names"])
    selected, final = results["selected_stage"], final_stage(results)
    facts = [("Selected model", stage_title(selected), stage_row(final).lower_title if final != selected else "")]
    shown = next((s for s in results["stages"] if s["name"] == final_stage(results, split)), None)
    metrics = (shown["metrics"].get(split) if shown and split else None) or {}
    if metrics:
        remark = f"{part_title(split)}, {rows_of(results, split):,} rows"
        decision = task_facts(results).decision
        facts.append((decision.long_name or decision.title, decision.with_unit(metrics[decision.name]), remark))
    measured = results.get("test_gains", {}).get(selected)
    if measured is not None:
        facts.append(_gain(measured["gain"], measured["interval"], "on the test part"))
    elif (expected := verdict.get("expected_gain")) is not None:
        facts.append(_gain(expected, verdict["expected_interval"], "to be expected"))
    elif verdict["gain"] is not None:
        facts.append(_gain(verdict["gain"], verdict["interval"], "on held-out labels"))
    validating = rows_of(results, "validation")
    remark = f"{classes} classes" + (f"; {validating:,} more to validate" if validating else "")
    facts.append(("Labels used", f"{labels:,}", remark))
    facts.append(("Unlabeled rows", f"{rows_of(results, 'unlabeled', labeled_only=False):,}", "in the pool"))
    return facts


def _gain(gain: float, interval: Sequence[float], where: str) -> tuple[str, str, str]:
    return "Gain from the pool", signed_points(gain) + " points", f"{where}; interval {signed_interval(interval)}"


def _record_section(results: Mapping[str, Any]) -> Section:
    """Lists what is needed to repeat the run."""
    command = results["command"] if isinstance(results["command"], str) else shlex.join(results["command"])
    rows = [["command", command], ["seed", str(results["seed"])]]
    rows += [[name, _plain(value)] for name, value in _flat(results["hardware"], "").items() if value is not None]
    tables = [Table(["", ""], rows, 2)]
    versions = _flat(results["versions"], "")
    tables.append(Table(["package", "version"], [[k, _plain(v)] for k, v in versions.items()], 2, title="Versions"))
    for stage in results["stages"]:
        config = _flat(stage["config"], "")
        if config:
            settings = [[name, _plain(value)] for name, value in config.items()]
            title = f"Settings: {stage_title(stage['name'])}"
            tables.append(Table(["setting", "value"], settings, 2, title=title))
    return Section("How this was made", tables=tables, caption="The same facts, machine-readable: results.json.")


def _flat(value: Any, prefix: str) -> dict[str, Any]:
    """Flattens nested mappings to dotted names; another value gets the prefix as its name."""
    if not isinstance(value, Mapping):
        return {prefix: value} if value else {}
    flat: dict[str, Any] = {}
    for name, item in value.items():
        dotted = f"{prefix}.{name}" if prefix else str(name)
        flat |= _flat(item, dotted) if isinstance(item, Mapping) else {dotted: item}
    return flat


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
