"""What a user's file may look like: it calls every public name, for the type checker (`tools/check_types.py`).

Nothing runs it; the examples of the docstrings are what runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from transformers import EvalPrediction, PreTrainedModel, TrainerCallback

import hfssl


class Quiet(TrainerCallback):
    """A callback of the user's."""


def half(prediction: EvalPrediction) -> dict[str, float]:
    """A metric of the user's."""
    return {"half": 0.5}


def main_job(table: Path, frame: pd.DataFrame, rows: Dataset, splits: DatasetDict) -> np.ndarray:
    """Tables of every kind, options, and the model in use."""
    result: hfssl.FitResult = hfssl.fit(
        table,
        output_dir=Path("runs") / "a",
        unlabeled=["a text", "another"],
        test=rows,
        class_names=["no", "yes"],
        class_prior={"no": 0.5, "yes": 0.5},
        preset="quick",
        batch_size=8,
        device="cpu",
        callbacks=[Quiet()],
        compute_metrics=half,
    )
    hfssl.fit(frame, output_dir="runs/b", seed=1, validation=splits, adapter="lora")
    hfssl.fit([("good", "yes"), ("bad", "no"), ("who knows", None)], output_dir="runs/c")
    hfssl.fit({"text": ["good", "bad"], "label": ["yes", "no"]}, output_dir="runs/d", max_steps=10, rounds=0)
    labels: list[str | None] = result.predict(["good", None])
    _ = (labels, result.results["verdict"]["sentence"], result.output_dir / "report.html")
    model: PreTrainedModel = result.model()
    classifier = hfssl.TextClassifier.from_pretrained(result.output_dir / "model")
    _ = (model.config.id2label, classifier.label_names, classifier.predict([("a premise", "a hypothesis")]))
    hfssl.export_onnx(result.output_dir, int8=True)
    hfssl.push(result.output_dir, "me/reviews", dry_run=True)
    return result.predict_proba("good")


def estimator(texts: list[str], labels: list[int]) -> float:
    """scikit-learn."""
    fitted = hfssl.SSLClassifier(preset="quick", options={"rounds": 0}).fit(texts, labels)
    return fitted.score(texts, labels)


def trainers(folder: Path, rows: Dataset, pool: Dataset) -> None:
    """Every trainer, with a model or a model id, with arguments or without."""
    backbone = "sentence-transformers/all-MiniLM-L6-v2"
    tokenizer = hfssl.load_tokenizer(backbone, max_length=64)
    model = hfssl.load_classifier(backbone, ["no", "yes"], seed=0)
    supervised = hfssl.SupervisedTrainer(
        model,
        hfssl.SupervisedConfig(output_dir=str(folder)),
        train_dataset=rows,
        eval_dataset={"a": rows, "b": rows},
        processing_class=tokenizer,
        peft_config=hfssl.build_lora_config(model),
    )
    supervised.train()
    _ = (supervised.evaluate(rows), supervised.predict(rows).predictions)
    hfssl.ContrastiveTrainer(backbone, hfssl.ContrastiveConfig(output_dir=str(folder)), train_dataset=rows).train()
    hfssl.MaskedSpanTrainer(backbone, hfssl.MaskedSpanConfig(output_dir=str(folder)), unlabeled_dataset=pool).train()
    args = hfssl.SelfTrainingConfig(output_dir=str(folder), rounds=1)
    hfssl.SelfTrainingTrainer(model, args, train_dataset=rows, unlabeled_dataset=pool).train()
    rounds = hfssl.SelfTraining(
        lambda seed: hfssl.load_classifier(backbone, ["no", "yes"], seed=seed),
        args,
        processing_class=tokenizer,
        label_names=["no", "yes"],
        output_dir=folder,
    )
    rounds.fit(model, rows, pool)


def own_method(trainer: hfssl.SSLTrainer, config: hfssl.SSLConfig) -> str | None:
    """Base classes."""
    trainer.train(resume_from_checkpoint=True)
    return config.output_dir


def data(table: Path, adapter: Path) -> None:
    """Tables, splits, saved models."""
    rows = hfssl.load_table(table, "text", "label", missing_labels=["?"])
    splits = hfssl.few_label_splits(rows, labels_per_class=8)
    hfssl.audit([splits.manifest]).raise_if_leaky()
    loaded = hfssl.from_pretrained(adapter)
    _ = (hfssl.merge(loaded), hfssl.__version__)  # pyright: ignore[reportArgumentType]
