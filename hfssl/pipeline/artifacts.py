"""What a finished run hands over: calibrated checkpoint, adapter, report, card and `results.json`, in this order.

`results.json` is written last: where it exists, everything else does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from peft import PeftModel
from scipy.special import softmax

from hfssl.config.arguments import FitArguments
from hfssl.data.splits import SemiSupervisedSplits
from hfssl.evaluation.temperature_scaling import fit_temperature, fold_temperature
from hfssl.metrics.classification import evaluate_probs
from hfssl.models.auto import from_pretrained
from hfssl.models.checkpoints import plain_model, save_checkpoint
from hfssl.pipeline.run_folder import RunFolder
from hfssl.pipeline.runner import StageRunner
from hfssl.reporting.html_report import build_report
from hfssl.reporting.model_card import run_card
from hfssl.reporting.results import kept_stage
from hfssl.runtime.files import atomic_file, write_json

__all__ = ["save_outcome"]

EXAMPLES = 8


def save_outcome(
    arguments: FitArguments,
    run: RunFolder,
    splits: SemiSupervisedSplits,
    stages: StageRunner,
    results: dict[str, Any],
) -> None:
    """Stages 7 and 8: calibrates the kept model and writes what the user takes away; completes `results` in place."""
    model = from_pretrained(run.stage(results["kept"]) / "model")
    uses_adapter = isinstance(model, PeftModel)
    if uses_adapter:
        save_checkpoint(model, stages.tokenizer, run.path / "adapter", stages.label_names)
    model = plain_model(model)
    results["temperature"] = _calibrate(model, stages, results["chosen"])
    results["calibrated"] = _calibrated_metrics(splits, stages, results)
    save_checkpoint(model, stages.tokenizer, run.path / "model", stages.label_names)
    evidence = _evidence(run, splits, stages, results)
    build_report(results, evidence, run.path / "report.html")
    card = run_card(results, arguments.keywords(), uses_adapter=uses_adapter)
    with atomic_file(run.path / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    write_json(run.path / "results.json", results)


def _calibrate(model: Any, stages: StageRunner, chosen: str) -> float | None:
    """Fits a temperature on the held-out labels and folds it into the head; `None` without held-out labels.

    A refit model, which has learned from these labels too, gets the temperature of the one that had not.
    """
    labels = np.asarray(stages.tokens["validation"]["labels"], dtype=np.int64)
    if not len(labels):
        return None
    temperature = fit_temperature(stages.evidence.logits(chosen)["validation"], labels)
    fold_temperature(model, temperature)
    return temperature


def _calibrated_metrics(splits: SemiSupervisedSplits, stages: StageRunner, results: dict[str, Any]) -> dict[str, Any]:
    """The kept model's metrics with its temperature (accuracy and macro-F1 cannot change by it)."""
    logits = stages.evidence.logits(results["kept"])
    temperature = results["temperature"] or 1.0
    return {
        name: evaluate_probs(softmax(values / temperature, axis=-1), np.asarray(splits[name]["label"], dtype=np.int64))
        if len(values)
        else None
        for name, values in logits.items()
    }


def _evidence(
    run: RunFolder, splits: SemiSupervisedSplits, stages: StageRunner, results: dict[str, Any]
) -> dict[str, Any]:
    names = [stage["name"] for stage in results["stages"]]
    predictions = {}
    for split in ("validation", "test"):
        labels = np.asarray(splits[split]["label"], dtype=np.int64)
        if len(labels):
            probs = {name: found[split] for name in names if split in (found := stages.evidence.predictions(name))}
            predictions[split] = {"labels": labels, "probs": probs}
    curves = {name: (run.done(name) or {}).get("curves", []) for name in ("adapted_backbone", *names)}
    return {
        "curves": {name: curve for name, curve in curves.items() if curve},
        "predictions": predictions,
        "rounds": (run.done("self_training") or {}).get("rounds", []),
        "examples": _confident_mistakes(splits, stages, results, predictions),
        "warnings": results["data"]["warnings"],
    }


def _confident_mistakes(
    splits: SemiSupervisedSplits, stages: StageRunner, results: dict[str, Any], predictions: dict[str, Any]
) -> list[dict[str, Any]]:
    split = next((name for name in ("test", "validation") if name in predictions), None)
    if split is None:
        return []
    labels, probs = predictions[split]["labels"], predictions[split]["probs"][kept_stage(results, split)]
    predicted = probs.argmax(axis=1)
    confidence = probs.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:EXAMPLES]
    texts = splits[split].select(wrong)["text"]
    return [
        {
            "text": text,
            "label": stages.label_names[labels[row]],
            "predicted": stages.label_names[predicted[row]],
            "probability": float(confidence[row]),
        }
        for row, text in zip(wrong.tolist(), texts, strict=True)
    ]
