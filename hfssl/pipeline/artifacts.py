"""What a finished run hands over: calibrated checkpoint, adapter, report, card and `results.json`, in this order.

`results.json` is written last: where it exists, everything else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from peft import PeftModel
from scipy.special import softmax

from hfssl.evaluation.temperature_scaling import fit_temperature, fold_temperature
from hfssl.metrics.classification import evaluate_probs
from hfssl.models.auto import from_pretrained
from hfssl.models.checkpoints import plain_model, save_checkpoint
from hfssl.pipeline.context import StageContext
from hfssl.pipeline.stage_record import StageRecord
from hfssl.reporting.html_report import build_report
from hfssl.reporting.model_card import run_card
from hfssl.reporting.results import RESULTS, final_stage
from hfssl.runtime.files import atomic_file, write_json

__all__ = ["save_outcome"]

EXAMPLES = 8


def save_outcome(context: StageContext, records: Mapping[str, StageRecord], results: dict[str, Any]) -> None:
    """Calibrates the final model and writes what the user takes away; completes `results` in place.

    Args:
        context (`StageContext`): Context of the run.
        records (`Mapping[str, StageRecord]`): Records of all its stages.
        results (`dict`): Content of `results.json`; `temperature` and `final_metrics` are filled in.
    """
    run = context.run_folder
    model = from_pretrained(run.stage(results["final_stage"]) / "model")
    uses_adapter = isinstance(model, PeftModel)
    if uses_adapter:
        save_checkpoint(model, context.tokenizer, run.path / "adapter", context.label_names)
    model = plain_model(model)
    results["temperature"] = _calibrate(model, context, results["selected_stage"])
    results["final_metrics"] = _final_metrics(context, results)
    save_checkpoint(model, context.tokenizer, run.path / "model", context.label_names)
    build_report(results, _evidence(context, records, results), run.path / "report.html")
    card = run_card(results, context.plan.arguments.keywords(), uses_adapter=uses_adapter)
    with atomic_file(run.path / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    write_json(run.path / RESULTS, results)


def _calibrate(model: Any, context: StageContext, selected_stage: str) -> float | None:
    """Fits a temperature on the held-out labels and folds it into the head; `None` without held-out labels.

    A refit model, which has learned from these labels too, gets the temperature of the one that had not.
    """
    labels = context.held_out.labels("validation")
    if not len(labels):
        return None
    temperature = fit_temperature(context.held_out.logits(selected_stage)["validation"], labels)
    fold_temperature(model, temperature)
    return temperature


def _final_metrics(context: StageContext, results: Mapping[str, Any]) -> dict[str, Any]:
    """The final model's metrics with its temperature (accuracy and macro-F1 cannot change by it)."""
    logits = context.held_out.logits(results["final_stage"])
    temperature = results["temperature"] or 1.0
    return {
        name: evaluate_probs(softmax(values / temperature, axis=-1), context.held_out.labels(name))
        if len(values)
        else None
        for name, values in logits.items()
    }


def _evidence(context: StageContext, records: Mapping[str, StageRecord], results: Mapping[str, Any]) -> dict[str, Any]:
    names = [stage["name"] for stage in results["stages"]]
    predictions = {}
    for split in ("validation", "test"):
        labels = context.held_out.labels(split)
        if len(labels):
            probs = {name: found[split] for name in names if split in (found := context.held_out.predictions(name))}
            predictions[split] = {"labels": labels, "probs": probs}
    return {
        "curves": {name: record.curves for name, record in records.items() if record.curves},
        "predictions": predictions,
        "rounds": next((record.rounds for record in records.values() if record.rounds), []),
        "examples": _confident_mistakes(context, results, predictions),
        "warnings": results["data"]["warnings"],
    }


def _confident_mistakes(
    context: StageContext, results: Mapping[str, Any], predictions: Mapping[str, Any]
) -> list[dict[str, Any]]:
    split = next((name for name in ("test", "validation") if name in predictions), None)
    if split is None:
        return []
    labels, probs = predictions[split]["labels"], predictions[split]["probs"][final_stage(results, split)]
    predicted = probs.argmax(axis=1)
    confidence = probs.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:EXAMPLES]
    texts = context.splits[split].select(wrong)["text"]
    return [
        {
            "text": text,
            "label": context.label_names[labels[row]],
            "predicted": context.label_names[predicted[row]],
            "probability": float(confidence[row]),
        }
        for row, text in zip(wrong.tolist(), texts, strict=True)
    ]
