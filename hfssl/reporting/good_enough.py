"""Is it good enough? The first question of a reader: the section of the report, and the closing lines of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hfssl.reporting.formatting import percent
from hfssl.reporting.results import OUT_OF_FOLD, final_stage, part_title, primary_split, rows_of
from hfssl.reporting.standing import BASELINE_TITLES, standing_sentence
from hfssl.reporting.task_facts import task_facts

__all__ = ["answer_sentence", "closing_lines", "coverage_rows", "next_step", "opening_sentences"]

WORTH_SHOWING = 0.02  # share of the rows; of fewer a table says nothing
FEW_ROWS = 100


def opening_sentences(results: Mapping[str, Any]) -> list[str]:
    """Returns the sentences that everything begins with: what the model is worth, then whether the pool helped.

    Args:
        results (`Mapping[str, Any]`): Content of `results.json`.
    """
    return [sentence for sentence in (standing_sentence(results), results["verdict"]["sentence"]) if sentence]


def answer_sentence(results: Mapping[str, Any]) -> str | None:
    """Returns the accuracy of the final model with its interval, next to the baselines; `None` without measured rows.

    Args:
        results (`Mapping[str, Any]`): Content of `results.json`.
    """
    part, decision = primary_split(results), task_facts(results).decision
    stage = next((s for s in results["stages"] if part and s["name"] == final_stage(results, part)), None)
    metrics = (results.get("final_metrics", {}).get(part) or stage["metrics"].get(part)) if stage and part else None
    if not metrics:
        return None
    rows = rows_of(results, part)
    interval = decision.interval(metrics[decision.name], rows)
    shown = f" (95% interval {percent(interval[0])} to {percent(interval[1])})" if interval else ""
    simplest = [
        f"{BASELINE_TITLES[one['name']]} {decision.with_unit(one['metrics'][part][decision.name])}"
        for one in results.get("baselines", [])
        if one["metrics"].get(part)
    ]
    where = f"{rows:,} {part_title(part)} rows"
    if part == OUT_OF_FOLD:
        where = f"the {rows:,} labeled rows, each by models trained without it"
    name = decision.long_name or decision.title
    comparison = f"; for comparison: {', '.join(simplest)}" if simplest else ""
    return f"{name[:1].upper()}{name[1:]} {decision.with_unit(metrics[decision.name])}{shown} on {where}{comparison}."


def coverage_rows(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the rows of the coverage table that say something: no two with the same rows, none with hardly any.

    Args:
        results (`Mapping[str, Any]`): Content of `results.json`.
    """
    found: list[Mapping[str, Any]] = []
    for row in (results.get("coverage") or {}).get("table", []):
        if row["share"] >= WORTH_SHOWING and (not found or row["rows"] != found[-1]["rows"]):
            found.append(row)
    return found


def next_step(results: Mapping[str, Any]) -> str:
    """Returns one sentence on what to do next.

    Args:
        results (`Mapping[str, Any]`): Content of `results.json`.
    """
    part = primary_split(results)
    if part is None:
        return "Label more rows, or give a --test table: without either, nobody knows how right this model is."
    if standing_sentence(results) is not None:
        return (
            "Look at errors.csv and at the pairs of classes that are mixed up: more labels of these, clearer classes, "
            "or a backbone for the language of the texts come before any other setting."
        )
    if part != "test" and rows_of(results, part) < FEW_ROWS:
        return (
            f"The interval is wide, because it rests on {rows_of(results, part):,} rows: label some rows more for "
            "--test before you rely on it."
        )
    return "Read errors.csv, and label more rows of the weakest classes; answers above a confidence can be used first."


def closing_lines(results: Mapping[str, Any]) -> list[str]:
    """Returns the lines below the table at the end of `hfssl fit`.

    Args:
        results (`Mapping[str, Any]`): Content of `results.json`.
    """
    lines = opening_sentences(results)
    answer = answer_sentence(results)
    lines += [answer] if answer else []
    for row in coverage_rows(results)[:1]:
        lines.append(
            f"Answers with a probability of {row['threshold']:g} or more: {percent(row['share'])}% of the rows, "
            f"{percent(row['accuracy'])}% of them right."
        )
    return [*lines, next_step(results)]
