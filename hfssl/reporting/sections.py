"""Builds the sections of the report: figures, tables and captions.

Sections are data for the template. A section without evidence names the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hfssl.config.stages import LABELS_ONLY
from hfssl.metrics.calibration import expected_calibration_error, reliability_bins
from hfssl.metrics.classification import class_scores, confusion_matrix
from hfssl.reporting import figures
from hfssl.reporting.formatting import duration, percent
from hfssl.reporting.good_enough import answer_sentence, coverage_rows, next_step
from hfssl.reporting.results import (
    OUT_OF_FOLD,
    PARTS,
    final_stage,
    gains_row_by_row,
    part_title,
    primary_split,
    rows_of,
    stage_title,
)
from hfssl.reporting.standing import BASELINE_TITLES
from hfssl.reporting.task_facts import TaskFacts, task_facts

__all__ = [
    "Example",
    "Section",
    "Table",
    "calibration_section",
    "confusion_section",
    "curves_section",
    "data_section",
    "examples_section",
    "good_enough_section",
    "rounds_section",
    "stages_section",
]

SPLITS = ("labeled", "unlabeled", "validation", "proxy", "test")
TOP_CONFUSIONS = 10
MAX_EXAMPLES = 8
MAX_EXAMPLE_LENGTH = 600  # characters


@dataclass(frozen=True)
class Table:
    """Holds a table of formatted cells. A table with a `title` is collapsed under that title."""

    header: list[str]
    rows: list[list[str]]
    numeric_from: int = 1  # index of the first column of right-aligned numbers
    title: str | None = None
    highlighted: int | None = None  # index of the row in bold
    groups: list[tuple[str, int]] = field(default_factory=list)  # first header line: (text, columns spanned)


@dataclass(frozen=True)
class Example:
    """Holds a text with its true and its predicted class."""

    text: str
    label: str
    predicted: str
    probability: str


@dataclass(frozen=True)
class Section:
    """Holds one part of the report. `missing` is the reason why there is nothing to show."""

    title: str
    figures: list[figures.Picture] = field(default_factory=list)  # panels of one figure
    caption: str = ""
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    missing: str | None = None


def predictions_of(evidence: Mapping[str, Any], split: str | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns labels `[N]` and stage -> probs `[N, K]` of a split; rows without a label are dropped, N may be 0."""
    found = evidence.get("predictions", {}).get(split)
    if not found:
        return np.zeros(0, dtype=np.int64), {}
    labels = np.asarray(found["labels"], dtype=np.int64)
    known = labels >= 0
    return labels[known], {stage: np.asarray(probs)[known] for stage, probs in found["probs"].items()}


def good_enough_section(results: Mapping[str, Any], evidence: Mapping[str, Any]) -> Section:
    """Builds the answer to the first question: accuracy next to the baselines, coverage, the weakest classes."""
    title, answer = "Is it good enough?", answer_sentence(results)
    if answer is None:
        return Section(title, missing=f"Nobody knows: no labels could measure it. {next_step(results)}")
    tables, part = [], primary_split(results)
    covered = [
        [f"{row['threshold']:g} or more", f"{row['rows']:,}", percent(row["share"]), percent(row["accuracy"])]
        for row in coverage_rows(results)
    ]
    if covered:
        tables.append(Table(["probability of the answer", "rows", "% of the rows", "% of them right"], covered))
    labels, probs = predictions_of(evidence, part)
    final = final_stage(results, part)
    if len(labels) and final in probs:
        names = evidence.get("classes") or results["data"]["label_names"]
        decided = evidence["predictions"][part].get("predicted", {}).get(final)
        predicted = probs[final].argmax(axis=1) if decided is None else np.asarray(decided)
        tables.append(_class_table(confusion_matrix(predicted, labels, len(names)), names))
    notes = [next_step(results), "All rows that are wrong are in errors.csv, next to this report."]
    return Section(title, caption=answer, tables=tables, notes=notes)


def stages_section(results: Mapping[str, Any]) -> Section:
    """Builds the table of stages and the figure of accuracy by stage."""
    title, task = "What each stage reached", task_facts(results)
    decision = task.decision
    stages, final = results["stages"], final_stage(results)
    measured = [s for s in PARTS if any(stage["metrics"].get(s) for stage in stages)]
    header, groups = ["stage"], [("", 1)]
    for split in measured:
        header += [metric.title for metric in task.tabled]
        groups.append((f"{part_title(split)} ({rows_of(results, split):,} rows)", len(task.tabled)))
    rows, highlighted = [], None
    for number, stage in enumerate(stages):
        row = [stage_title(stage["name"])]
        for split in measured:
            metrics = stage["metrics"].get(split) or {}
            row += [metric.shown(metrics.get(metric.name), "–") for metric in task.tabled]
        rows.append([*row, duration(stage["seconds"])])
        highlighted = number if stage["name"] == final else highlighted
    for baseline in results.get("baselines", []):
        row = [f"({BASELINE_TITLES[baseline['name']]})"]
        for split in measured:
            metrics = baseline["metrics"].get(split) or {}
            row += [metric.shown(metrics.get(metric.name), "–") for metric in task.tabled]
        rows.append([*row, "–"])
    table = Table([*header, "time"], rows, highlighted=highlighted, groups=[*groups, ("", 1)])
    if not measured:
        missing = f"No labels were held out, so no {decision.title} could be measured."
        return Section(title, tables=[table], missing=missing)
    split = measured[0]
    count = rows_of(results, split)
    points = []
    for stage in stages:
        if stage["metrics"].get(split):
            value = stage["metrics"][split][decision.name]
            interval = decision.interval(value, count) or (None, None)
            points.append(figures.AccuracyRow(stage["name"], stage_title(stage["name"]), value, *interval))
    row_by_row = gains_row_by_row(results) or "The verdict above compares them row by row."
    intervals = ", with 95% intervals for that number of rows" if decision.share_of_rows else ""
    others = [metric.title for metric in task.tabled if not metric.in_points]
    caption = (
        f"{decision.long_name or decision.title} on the {count:,} {part_title(split)} rows{intervals}; the filled "
        "dot is the final stage. Overlapping intervals do not mean equal models: all stages predicted "
        f"the same rows. {row_by_row} All numbers except {' and '.join(['the time', *others])} are in percent"
    )
    caption += "; ECE is the gap between confidence and accuracy, lower is better." if _has_ece(task) else "."
    panels = figures.accuracy_by_stage(points, final_stage(results, split), decision.column)
    return Section(title, panels, caption, tables=[table])


def _has_ece(task: TaskFacts) -> bool:
    return any(metric.name == "ece" for metric in task.tabled)


def data_section(results: Mapping[str, Any], evidence: Mapping[str, Any]) -> Section:
    """Builds the class counts by split, and the warnings about the data."""
    data = results["data"]
    names, counts = data["label_names"], data["counts"]
    # The rows that folds judge are labeled ones, which are listed already.
    order = [s for s in SPLITS if s in counts] + [s for s in counts if s not in (*SPLITS, OUT_OF_FOLD)]
    by_class = {s: [counts[s].get(name, 0) for name in names] for s in order}
    by_class = {s: numbers for s, numbers in by_class.items() if sum(numbers)}
    summary = Table(
        ["part", "rows", "with a label"],
        [[s, f"{rows_of(results, s, False):,}", f"{rows_of(results, s):,}"] for s in order],
    )
    tables = [summary]
    if len(names) > figures.MAX_NAMED_CLASSES or figures.drawable_names(names) != list(names):
        rows = [[f"#{i}", name, *(f"{by_class[s][i]:,}" for s in by_class)] for i, name in enumerate(names)]
        tables.append(Table(["class", "name", *by_class], rows, 2, title=f"All {len(names)} classes"))
    notes = list(dict.fromkeys([*data.get("warnings", []), *evidence.get("warnings", [])]))
    if not by_class:
        return Section("The data", notes=notes, tables=tables, missing="No part holds a labeled row.")
    labeled = by_class.get("labeled", [])
    caption = f"Rows of each class in each part; the model was trained on the {sum(labeled):,} in the darker bars"
    caption += f" ({_span(labeled)} per class)." if labeled else "."
    pool = rows_of(results, "unlabeled", labeled_only=False)
    caption += f" In addition, there were {pool:,} unlabeled rows in the pool." if pool else ""
    return Section("The data", figures.class_counts(by_class, names), caption, notes, tables)


def curves_section(evidence: Mapping[str, Any]) -> Section:
    """Builds the learning curves."""
    title, drawn, dropped, single = "Learning curves", {}, 0, []
    for stage, records in evidence.get("curves", {}).items():
        losses = {"training": "loss", "held out": "eval_loss"}
        series = {
            name: [(r["step"], r[key]) for r in records if r.get(key) is not None] for name, key in losses.items()
        }
        dropped += sum(not math.isfinite(value) for points in series.values() for _, value in points)
        series = {name: [p for p in points if math.isfinite(p[1])] for name, points in series.items()}
        series = {name: points for name, points in series.items() if points}
        if any(len(points) > 1 for points in series.values()):
            drawn[stage] = (stage_title(stage), series)
        elif series:
            single.append(stage_title(stage))
    notes = [f"{dropped} recorded losses were not finite and are not drawn."] if dropped else []
    notes += [f"Recorded once, which makes no curve: {', '.join(single)}."] if single else []
    if not drawn:
        return Section(title, notes=notes, missing="No stage has recorded its loss twice or more.")
    several = " Stages minimise different losses: compare shapes, not heights." if len(drawn) > 1 else ""
    caption = f"Training loss by optimizer step; where it is faint, the bold line is its running mean.{several}"
    return Section(title, figures.learning_curves(drawn), caption, notes)


def rounds_section(results: Mapping[str, Any], evidence: Mapping[str, Any]) -> Section:
    """Builds the quality of pseudo-labels by round."""
    title = "Pseudo-labels, round by round"
    records: Sequence[Mapping[str, Any]] = evidence.get("rounds", [])
    if not records:
        return Section(title, missing="No self-training rounds were run.")
    decision = task_facts(results).decision
    validation = [(r.get("validation") or {}).get(decision.name) for r in records]
    lines = {
        "pseudo-labels that are correct": [r.get("pseudo_label_accuracy") for r in records],
        "pool rows with the label of the last round": [r.get("pool_agreement") for r in records],
        f"validation {decision.title} of the student": validation,
    }
    lines = {name: values for name, values in lines.items() if any(v is not None for v in values)}
    panels = figures.rounds([r["round"] + 1 for r in records], [r["selected"] for r in records], lines)
    quality = [v for v in lines.get("pseudo-labels that are correct", []) if v is not None]
    if quality:
        caption = (
            f"{percent(quality[-1])}% of the pseudo-labels of the last round agree with the hidden labels "
            f"(first round: {percent(quality[0])}%). Hidden labels were used for this figure only."
        )
    else:
        caption = "The true labels of the pool are unknown, and so is the accuracy of the pseudo-labels."
    header = ["round", "rows", "correct, %", "unchanged, %", "validation, %", "mean weight", "mean BALD, nats", "time"]
    rows = [
        [
            str(r["round"] + 1),
            f"{r['selected']:,}",
            percent(r.get("pseudo_label_accuracy")),
            percent(r.get("pool_agreement")),
            percent(accuracy),
            _number(r.get("mean_weight")),
            _number(r.get("mean_bald")),
            duration(r["seconds"]),
        ]
        for r, accuracy in zip(records, validation, strict=True)
    ]
    return Section(title, panels, caption, tables=[Table(header, rows)])


def calibration_section(results: Mapping[str, Any], evidence: Mapping[str, Any]) -> Section:
    """Builds reliability diagrams: the final model before and after its temperature, or next to labels only."""
    title, split, temperature = "Can the probabilities be trusted?", primary_split(results), results.get("temperature")
    labels, probs = predictions_of(evidence, split)
    final = final_stage(results, split)
    if not len(labels) or final not in probs:
        return Section(title, missing="There are no predictions of the final model on held-out labels.")
    if temperature:
        saved = _with_temperature(probs[final], temperature)
        shown = [(final, "As trained", probs[final]), (final, "As saved, with its temperature", saved)]
    else:
        saved = probs[final]
        names = [stage for stage in dict.fromkeys([LABELS_ONLY, final]) if stage in probs]
        shown = [(stage, stage_title(stage), probs[stage]) for stage in names]
    panels = [
        (stage, f"{name}: ECE {percent(expected_calibration_error(p, labels))}%", reliability_bins(p, labels))
        for stage, name, p in shown
    ]
    confidence, right = float(saved.max(axis=1).mean()), float((saved.argmax(axis=1) == labels).mean())
    gap = 100 * (confidence - right)
    tendency = "about right" if abs(gap) < 1 else f"{abs(gap):.1f} points too {'high' if gap > 0 else 'low'}"
    caption = (
        f"Above: accuracy of the {part_title(split)} rows by confidence, larger dots for more rows; on the dashed "
        f"line, probabilities are calibrated. Below: number of rows with that confidence. The saved model has "
        f"a mean confidence of {100 * confidence:.1f}% and is correct on {100 * right:.1f}%: {tendency}."
    )
    if temperature:
        rows = "validation" if rows_of(results, "validation") else "labeled"
        caption += f" It divides its logits by a temperature of {temperature:.3g}, fitted on the {rows} rows"
        caption += ", the same as here, so it looks too good." if split in ("validation", OUT_OF_FOLD) else "."
    if len(labels) < 200:
        caption += f" With {len(labels)} rows, the bins are noisy."
    return Section(title, figures.reliability(panels), caption)


def _with_temperature(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Computes softmax(logits / T) from softmax(logits) `[N, K]`; the constant that softmax removes cancels."""
    scaled = np.log(np.clip(probs, np.finfo(np.float64).tiny, 1.0)) / temperature
    powered = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powered / powered.sum(axis=1, keepdims=True)


def confusion_section(results: Mapping[str, Any], evidence: Mapping[str, Any]) -> Section:
    """Builds the final stage's confusion matrix, its most frequent confusions, and scores class by class."""
    title, split = "What gets mixed up", primary_split(results)
    labels, probs = predictions_of(evidence, split)
    names, final = evidence.get("classes") or results["data"]["label_names"], final_stage(results, split)
    if not len(labels) or final not in probs:
        return Section(title, missing="There are no predictions of the final model on held-out labels.")
    decided = evidence["predictions"][split].get("predicted", {}).get(final)
    predicted = probs[final].argmax(axis=1) if decided is None else np.asarray(decided)
    matrix = confusion_matrix(predicted, labels, len(names))
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    totals = matrix.sum(axis=1)
    order = [cell for cell in np.argsort(-wrong, axis=None, kind="stable")[:TOP_CONFUSIONS] if wrong.flat[cell]]
    confused = []
    for true, guess in (divmod(int(cell), len(names)) for cell in order):
        share = percent(wrong[true, guess] / totals[true])
        confused.append([names[true], names[guess], f"{wrong[true, guess]:,}", share])
    tables = [Table(["true class", "predicted as", "rows", "% of the class"], confused, 2)] if confused else []
    caption = (
        f"{stage_title(final)} on the {len(labels):,} {part_title(split)} rows: each line is a true class, shaded by "
        "the predicted classes; a perfect model has only the diagonal."
    )
    if len(names) > figures.MAX_NAMED_CLASSES:
        caption += f" The {len(names)} classes are named above, under the data."
    caption += " The table lists the most frequent confusions." if confused else " No row was predicted wrongly."
    return Section(title, figures.confusion(matrix, names), caption, tables=tables)


def _class_table(matrix: np.ndarray, names: Sequence[str]) -> Table:
    scores = class_scores(matrix)
    rows = []
    for i, name in enumerate(names):
        recall = scores.recall[i] if scores.support[i] else None
        precision = scores.precision[i] if scores.predicted[i] else None
        f1 = scores.f1[i] if scores.support[i] + scores.predicted[i] else None
        rows.append([name, f"{scores.support[i]:,}", percent(precision), percent(recall), percent(f1)])
    weakest = np.argsort(
        [-1.0 if np.isnan(value) else value for value in np.asarray(scores.f1, dtype=float)], kind="stable"
    )
    return Table(["class, weakest first", "rows", "precision, %", "recall, %", "F1, %"], [rows[i] for i in weakest])


def examples_section(results: Mapping[str, Any], evidence: Mapping[str, Any]) -> Section:
    """Lists the texts that the final model predicts wrongly with the highest probability."""
    title, names = "Most confident mistakes", results["data"]["label_names"]
    wrong = [e for e in evidence.get("examples", []) if e["label"] != e["predicted"]]
    wrong = sorted(wrong, key=lambda e: -e["probability"])[:MAX_EXAMPLES]
    if not wrong:
        return Section(title, missing="There are no mistakes on held-out labels to show.")
    examples = [
        Example(
            _shortened(e["text"]), _class_name(e["label"], names), _class_name(e["predicted"], names),
            percent(e["probability"]),
        )
        for e in wrong
    ]  # fmt: skip
    caption = "Held-out texts with wrong predictions of the highest probability. Some of their labels may be wrong."
    if results.get("temperature"):
        caption += " Probabilities are without the temperature."
    return Section(title, caption=caption, examples=examples)


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _class_name(label: int | str, names: Sequence[str]) -> str:
    return names[label] if isinstance(label, int) else label


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_EXAMPLE_LENGTH else text[:MAX_EXAMPLE_LENGTH].rstrip() + " …"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
