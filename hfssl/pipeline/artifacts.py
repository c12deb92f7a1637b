"""The artifacts of a finished run: calibrated checkpoint, adapter, report, card and `results.json`, in this order.

Before the last one their sizes and hashes are listed in `files.json`.

`results.json` is written last: where it exists, all other artifacts exist.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset
from peft import PeftModel

from hfssl.evaluation.temperature_scaling import fit_temperature, fold_temperature, match_temperature
from hfssl.inference.scoring import predict_logits
from hfssl.methods.self_training.pseudo_labeler import sharpened
from hfssl.metrics.selective import coverage_table
from hfssl.models.auto import from_pretrained
from hfssl.models.checkpoints import plain_model, save_checkpoint
from hfssl.pipeline.context import StageContext
from hfssl.pipeline.stage_record import StageRecord
from hfssl.reporting.html_report import build_report
from hfssl.reporting.model_card import run_card
from hfssl.reporting.results import OUT_OF_FOLD, PARTS, final_stage
from hfssl.runtime.files import atomic_file

__all__ = ["save_outcome"]

ERRORS = "errors.csv"
EXAMPLES = 8
KEPT = ("probs", "predicted")  # of each stage


def save_outcome(context: StageContext, records: Mapping[str, StageRecord], results: dict[str, Any]) -> None:
    """Calibrates the final model and writes the artifacts of the run; completes `results` in place.

    Args:
        context (`StageContext`): Context of the run.
        records (`Mapping[str, StageRecord]`): Records of all its stages.
        results (`dict[str, Any]`): Content of `results.json`; `temperature` and `final_metrics` are filled in.
    """
    run = context.run_folder
    model = from_pretrained(run.stage(results["final_stage"]) / "model")
    uses_adapter = isinstance(model, PeftModel)
    if uses_adapter:
        save_checkpoint(model, context.tokenizer, run.path / "adapter", context.label_names)
    model = plain_model(model)
    results["temperature"] = _calibrate(model, context, results["selected_stage"])
    results["final_metrics"] = _final_metrics(context, results)
    evidence = _evidence(context, records, results)
    results["coverage"] = _coverage(results, evidence)
    save_checkpoint(model, context.tokenizer, run.path / "model", context.label_names)
    _write_errors(context, results, evidence)
    build_report(results, evidence, run.path / "report.html")
    card = run_card(results, context.plan.arguments.keywords(), uses_adapter=uses_adapter)
    with atomic_file(run.path / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    run.finish(results)


def _calibrate(model: Any, context: StageContext, selected_stage: str) -> float | None:
    """Fits a temperature and folds it into the head; `None` where there is nothing to fit it on.

    It is fitted on held-out labels, of the selected stage also for a refit model, which has learned from them; without
    any, on the labeled rows, each predicted by models that were trained without it; and where no such students were
    trained, so that the student is as sure as the ensemble that taught it.
    """
    temperature = _temperature(model, context, selected_stage)
    if temperature is not None:
        fold_temperature(model, temperature)
    return temperature


def _temperature(model: Any, context: StageContext, selected_stage: str) -> float | None:
    held_out, task = context.held_out, context.task
    if len(labels := held_out.labels("validation")):
        return fit_temperature(held_out.logits(selected_stage)["validation"], labels, task=task)
    found, labels = held_out.out_of_fold([selected_stage]), held_out.out_of_fold_labels()
    if selected_stage not in found:
        return None
    fitted = fit_temperature(found[selected_stage], labels, task=task)
    if not held_out.is_stand_in(selected_stage):
        return fitted
    proxy, ensemble = context.tokens["proxy"], held_out.folds.stacked_part("proxy")
    if ensemble is None:
        return None
    calibrated = task.probs(np.log(np.maximum(ensemble, 1e-12)) / fitted)
    return match_temperature(predict_logits(model, proxy, context.tokenizer), calibrated, task=task)


def _final_metrics(context: StageContext, results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the final model's metrics with its temperature (which does not change accuracy and macro-F1)."""
    logits = context.held_out.logits(results["final_stage"])
    temperature = results["temperature"] or 1.0
    found = {
        name: context.task.evaluate(context.task.probs(values / temperature), context.held_out.labels(name))
        if len(values)
        else None
        for name, values in logits.items()
    }
    stage = results["selected_stage"]
    return found | context.held_out.out_of_fold_metrics([stage], temperature).get(stage, {})


def _evidence(context: StageContext, records: Mapping[str, StageRecord], results: Mapping[str, Any]) -> dict[str, Any]:
    names, task = [stage["name"] for stage in results["stages"]], context.task
    predictions = {}
    for split in ("validation", "test", OUT_OF_FOLD):
        if split == OUT_OF_FOLD:
            labels, logits = context.held_out.out_of_fold_labels(), context.held_out.out_of_fold(names)
        else:
            labels, found = context.held_out.labels(split), {name: context.held_out.logits(name) for name in names}
            logits = {name: parts[split] for name, parts in found.items() if split in parts}
        labels = task.unit_labels(labels)
        if len(labels) and logits:
            probs = {name: task.unit_probs(found) for name, found in logits.items()}
            predicted = {name: task.unit_predicted(found) for name, found in probs.items()}
            predictions[split] = {"labels": labels, "probs": probs, "predicted": predicted}
    return {
        "curves": {name: record.curves for name, record in records.items() if record.curves},
        "predictions": predictions,
        "classes": task.unit_classes(context.label_names),
        "rounds": next((record.rounds for record in records.values() if record.rounds), []),
        "examples": _confident_mistakes(context, results, predictions),
        "warnings": results["data"]["warnings"],
    }


def _final_predictions(
    results: Mapping[str, Any], evidence: Mapping[str, Any]
) -> tuple[str, np.ndarray, np.ndarray, np.ndarray] | None:
    """Returns part, labels `[N]`, decisions `[N]` and their calibrated probabilities `[N]`; `None` without any."""
    part = next((name for name in PARTS if name in evidence["predictions"]), None)
    if part is None:
        return None
    found, stage = evidence["predictions"][part], final_stage(results, part)
    if stage not in found["probs"]:
        return None
    probs = sharpened(found["probs"][stage], results["temperature"] or 1.0)
    confidence = np.take_along_axis(probs, found["predicted"][stage][:, None], axis=1)[:, 0]
    return part, found["labels"], found["predicted"][stage], confidence


def _coverage(results: Mapping[str, Any], evidence: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns how right the final model is above each confidence, on the part that says most."""
    found = _final_predictions(results, evidence)
    if found is None:
        return None
    part, labels, predicted, confidence = found
    known = labels >= 0
    return {"part": part, "table": coverage_table(confidence[known], predicted[known] == labels[known])}


def _write_errors(context: StageContext, results: Mapping[str, Any], evidence: Mapping[str, Any]) -> None:
    """Writes `errors.csv`: the rows that the final model, or models without their fold, get wrong, surest first."""
    found = _final_predictions(results, evidence)
    if found is None:
        return
    part, labels, predicted, confidence = found
    rows, classes = _rows_of(context, part), context.task.unit_classes(context.label_names)
    unit_rows = context.task.unit_rows(len(rows), len(context.label_names))
    wrong = np.flatnonzero((labels >= 0) & (predicted != labels))
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    names = [name for name in ("id", "text", "text_pair") if name in rows.column_names]
    chosen = rows.select(unit_rows[wrong]).select_columns(names)
    with (
        atomic_file(context.run_folder.path / ERRORS) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*names, "part", "label", "predicted_label", "probability"])
        for row, unit in zip(chosen, wrong.tolist(), strict=True):
            texts = [str(row[name]).encode("utf-8", "replace").decode() for name in names]
            writer.writerow([*texts, part, classes[labels[unit]], classes[predicted[unit]], f"{confidence[unit]:.6f}"])


def _rows_of(context: StageContext, part: str) -> Dataset:
    """Returns the rows of a part, with their texts."""
    if part != OUT_OF_FOLD:
        return context.splits[part]
    return context.splits["labeled"].select(np.flatnonzero(context.plan.folds >= 0))


def _confident_mistakes(
    context: StageContext, results: Mapping[str, Any], predictions: Mapping[str, Any]
) -> list[dict[str, Any]]:
    split = next((name for name in PARTS if name in predictions), None)
    if split is None:
        return []
    final, classes = final_stage(results, split), context.task.unit_classes(context.label_names)
    labels, probs, predicted = predictions[split]["labels"], *(predictions[split][k][final] for k in KEPT)
    confidence = np.take_along_axis(probs, predicted[:, None], axis=1)[:, 0]
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:EXAMPLES]
    shown = _rows_of(context, split)
    rows = context.task.unit_rows(len(shown), len(context.label_names))[wrong]
    texts = shown.select(rows)["text"]
    return [
        {
            "text": text,
            "label": classes[labels[row]],
            "predicted": classes[predicted[row]],
            "probability": float(confidence[row]),
        }
        for row, text in zip(wrong.tolist(), texts, strict=True)
    ]
