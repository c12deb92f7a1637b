"""Builds the card of one trainer's model, also during training. `hfssl.reporting.model_card` has that of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCardData

from hfssl.citations import LORA, papers_and_citations
from hfssl.reporting.markdown import environment, hub_id, private, shown_base_model
from hfssl.reporting.task_facts import TaskFacts

__all__ = ["VERSIONED", "TrainedModel", "training_card"]

MAX_NAMED_LABELS = 30
VERSIONED = ("hfssl", "torch", "transformers", "datasets", "peft", "accelerate")
CLASSIFY = """\
from transformers import pipeline

classifier = pipeline("{tag}", model={path})
print(classifier("Put a text of your own here.", truncation=True, top_k=None))"""
WITH_HFSSL = """\
import torch

import hfssl

model = hfssl.from_pretrained({path}).eval()
tokenizer = hfssl.load_tokenizer({path})
inputs = tokenizer("Put a text of your own here.", truncation=True, return_tensors="pt")
with torch.no_grad():
    probs = model(**inputs).logits.softmax(dim=-1)[0]
print({{model.config.id2label[i]: p for i, p in enumerate(probs.tolist())}})"""
FILL = """\
from transformers import pipeline

fill = pipeline("{tag}", model={path})
print(fill(f"It was a {{fill.tokenizer.mask_token}} film."))"""


@dataclass(frozen=True)
class TrainedModel:
    """Holds the facts about a trainer and its model for a card.

    Args:
        path (`str`): Folder or Hub id that the snippet loads.
        trainer (`str`): Class name of the trainer.
        base_model (`str`): Hub id or folder that training started from.
        product (`Literal["classifier", "encoder", "masked_lm"]`): Kind of the trained model; see `Objective`.
        label_names (`Sequence[str]`, defaults to `()`): Class names of a classifier, in the order of the logits.
        adapter (`bool`, defaults to `False`): Whether the model is a LoRA adapter.
        pooling (`str`, defaults to `"stock"`): Head of the model; a model with `"mean"` can only be loaded with hfssl.
        described (`Mapping[str, Any]`): `paper` and `citation` of the objective, and the settings that differ from the
            defaults.
        labeled (`int`, defaults to `0`): Number of labeled rows.
        unlabeled (`int`, defaults to `0`): Number of unlabeled rows.
        step (`int`, defaults to `0`): Number of optimizer steps so far.
        max_steps (`int`, defaults to `0`): Number of planned optimizer steps.
        seed (`int`, defaults to `0`): Random seed of the run.
        metrics (`Mapping[str, Mapping[str, float]]`): Split -> metrics of the task, and number of `rows`.
        task (`TaskFacts`, defaults to `TaskFacts()`): Kind of prediction; the default is one label per text.
    """

    path: str
    trainer: str
    base_model: str
    product: Literal["classifier", "encoder", "masked_lm"]
    described: Mapping[str, Any]
    label_names: Sequence[str] = ()
    adapter: bool = False
    pooling: str = "stock"
    labeled: int = 0
    unlabeled: int = 0
    step: int = 0
    max_steps: int = 0
    seed: int = 0
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    task: TaskFacts = TaskFacts()


def training_card(
    model: TrainedModel,
    *,
    license: str | None = None,
    language: str | None = None,
    tags: Sequence[str] = (),
    datasets: Sequence[str] = (),
) -> str:
    """Renders the card as Markdown with a YAML header, ready for `huggingface_hub.ModelCard`.

    Args:
        model (`TrainedModel`): Facts about the model.
        license (`str`, *optional*): Hub license id. Without it the card states that there is none.
        language (`str`, *optional*): Language code of the texts.
        tags (`Sequence[str]`, defaults to `()`): Additional tags.
        datasets (`Sequence[str]`, defaults to `()`): Hub ids of the data sets.
    """
    papers, citations = papers_and_citations(model.described)
    settings = {name: private(value) for name, value in model.described.items() if name not in ("citation", "paper")}
    body = (
        environment()
        .get_template("training_card.md")
        .render(
            {name: getattr(model, name) for name in ("adapter", "labeled", "max_steps", "product", "seed", "step")},
            name=model.path.rpartition("/")[2],
            trainer=model.trainer,
            unlabeled=model.unlabeled,
            base_model=shown_base_model(model.base_model),
            base_is_local=hub_id(model.base_model) is None,
            label_names=list(model.label_names)[:MAX_NAMED_LABELS],
            num_labels=len(model.label_names),
            snippet=_snippet(model),
            metrics=_rows(model),
            task=model.task,
            settings=json.dumps(settings, indent=2, ensure_ascii=False, default=str),
            papers=papers,
            citations=citations + [LORA] * model.adapter,
            versions={name: version(name) for name in VERSIONED},
            license=license,
        )
    )
    metadata = _metadata(model, license, language, tags, datasets)
    return f"---\n{metadata.to_yaml()}\n---\n\n{body}"


def _snippet(model: TrainedModel) -> str | None:
    """Returns code that loads the model; `None` for a model that is only useful for more training."""
    if model.product == "classifier":
        code = WITH_HFSSL if model.adapter or model.pooling != "stock" else CLASSIFY
    elif model.product == "masked_lm" and not model.adapter:
        code = FILL
    else:
        return None
    return code.format(path=json.dumps(model.path), tag=_pipeline_tag(model))


def _pipeline_tag(model: TrainedModel) -> str:
    tags = {"classifier": model.task.pipeline_tag, "masked_lm": "fill-mask", "encoder": "feature-extraction"}
    return tags[model.product]


def _rows(model: TrainedModel) -> list[dict[str, Any]]:
    found, decision = [], model.task.decision
    for split, values in model.metrics.items():
        rows = int(values["rows"])
        bounds = decision.interval(values[decision.name], rows)
        interval = "–" if bounds is None else f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}"
        first, *others = [metric.shown(values[metric.name]) for metric in model.task.tabled]
        found.append({"split": split, "rows": rows, "cells": [first, interval, *others]})
    return found


def _metadata(
    model: TrainedModel, license: str | None, language: str | None, tags: Sequence[str], datasets: Sequence[str]
) -> ModelCardData:
    base = hub_id(model.base_model)
    results = [
        EvalResult(
            task_type=model.task.pipeline_tag,
            dataset_type="user",
            dataset_name="the author's data",
            dataset_split=split,
            metric_type=metric.hub_type,
            metric_value=round(values[metric.name], 6),
        )
        for split, values in model.metrics.items()
        for metric in model.task.metrics
        if metric.on_hub
    ]
    return ModelCardData(
        base_model=base,
        base_model_relation=("adapter" if model.adapter else "finetune") if base else None,
        datasets=list(datasets) or None,
        language=language,
        library_name="peft" if model.adapter else "transformers",
        license=license,
        pipeline_tag=_pipeline_tag(model),
        tags=list(dict.fromkeys(["semi-supervised-learning", "hfssl", *["lora"] * model.adapter, *tags])),
        model_name=model.path.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )
