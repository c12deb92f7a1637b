"""Builds the model card of a run: method, data, results and limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from yaml import YAMLError

from hfssl.citations import GUO_2017, LORA, papers_and_citations
from hfssl.reporting.formatting import duration, percent, signed_interval, signed_points
from hfssl.reporting.markdown import environment, hub_id, private, private_command, shown_base_model, slug
from hfssl.reporting.results import (
    OUT_OF_FOLD,
    final_stage,
    gains_row_by_row,
    part_title,
    primary_split,
    rows_of,
    stage_title,
)
from hfssl.reporting.standing import BASELINE_TITLES, standing_sentence
from hfssl.reporting.task_facts import Metric, TaskFacts, task_facts

__all__ = ["build_model_card", "run_card"]

MAX_NAMED_LABELS = 30
PROSE_KEYS = ("citation", "paper")  # not shown among the settings


def run_card(
    results: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    uses_adapter: bool,
    license: str | None = None,
    **paths: Any,
) -> str:
    """Renders the card of a run of `fit` from its `results.json` and `settings.json`.

    Args:
        results (`Mapping[str, Any]`): Content of `results.json`.
        settings (`Mapping[str, Any]`): Options of the run.
        uses_adapter (`bool`): Whether there is a LoRA adapter.
        license (`str`, *optional*): Hub license id. Without it the card states that there is none.
        paths (`Any`): Arguments `model_path`, `adapter_path`, `adapter_subfolder` and `adapter_only` of
            `build_model_card`.
    """
    return build_model_card(
        results,
        base_model=settings["backbone"],
        license=license,
        dataset_name=Path(settings["train"]).name,
        label_names=results["data"]["label_names"],
        stages_config={stage["name"]: stage["config"] for stage in results["stages"]},
        uses_adapter=uses_adapter,
        lora=settings.get("adapter") == "lora",
        pooling=settings.get("pooling", "stock"),
        **paths,
    )


def build_model_card(
    results: Mapping[str, Any],
    *,
    base_model: str,
    license: str | None,
    dataset_name: str,
    label_names: Sequence[str],
    stages_config: Mapping[str, Mapping[str, Any]],
    uses_adapter: bool,
    pooling: Literal["stock", "mean"],
    model_path: str = "model",
    adapter_path: str = "adapter",
    adapter_subfolder: str | None = None,
    adapter_only: bool = False,
    lora: bool = False,
) -> str:
    """Renders the card (`README.md`), with the final model's evaluation as a `model-index` in its metadata.

    Args:
        results (`Mapping[str, Any]`): Content of `results.json`.
        base_model (`str`): Hub id or folder of the backbone; a folder is named in the text only, not in the metadata.
        license (`str | None`): Hub license id such as `"apache-2.0"`; with `None` the card states that there is none.
        dataset_name (`str`): Hub id or file name of the data.
        label_names (`Sequence[str]`): The K class names in the order of the logits.
        stages_config (`Mapping[str, Mapping[str, Any]]`): Stage -> its settings, nested by step; entries `citation`
            (BibTeX) and `paper` at any depth are cited.
        uses_adapter (`bool`): Whether `adapter_path` holds a LoRA adapter in addition to the merged model.
        pooling (`Literal["stock", "mean"]`): Head of the model. Plain `transformers` loads `"stock"`; `"mean"` needs
            hfssl, as the card explains.
        model_path (`str`, defaults to `"model"`): Folder (relative to the card) or Hub id that the snippet loads.
        adapter_path (`str`, defaults to `"adapter"`): Folder or Hub id of the adapter.
        adapter_subfolder (`str`, *optional*): Subfolder of the adapter in the repository `adapter_path`.
        adapter_only (`bool`, defaults to `False`): Whether there is only the adapter, without a merged model.
        lora (`bool`, defaults to `False`): Whether the model was trained with an adapter, which may have been merged.

    Returns:
        Markdown with a YAML header, ready for `huggingface_hub.ModelCard`.
    """
    split, task = primary_split(results), task_facts(results)
    sources = {stage: papers_and_citations(config) for stage, config in stages_config.items()}
    citations = [citation for _, found in sources.values() for citation in found]
    citations += [LORA] * (uses_adapter or lora) + [GUO_2017] * (results["temperature"] is not None)
    body = (
        environment(percent=percent, duration=duration, stage=stage_title, interval=partial(_interval, task.decision))
        .get_template("model_card.md")
        .render(
            results=results,
            verdict=results["verdict"],
            base_model=shown_base_model(base_model),
            base_is_local=hub_id(base_model) is None,
            license=license,
            dataset_name=dataset_name,
            label_names=label_names[:MAX_NAMED_LABELS],
            num_labels=len(label_names),
            task=task,
            model_title=task.model_title.format(classes=len(label_names)),
            limit=task.limit.format(classes=len(label_names)),
            standing=standing_sentence(results),
            baseline_titles=BASELINE_TITLES,
            measured=_measured(task, _saved_metrics(results, split)),
            gain=_gain(results["verdict"]),
            row_by_row=gains_row_by_row(results),
            split=split,
            part=part_title(split) if split else None,
            split_rows=rows_of(results, split) if split else 0,
            labels_used=rows_of(results, "labeled"),
            final_stage=final_stage(results),
            refitted=final_stage(results) != results["selected_stage"],
            validation_rows=rows_of(results, "validation"),
            pool=rows_of(results, "unlabeled", labeled_only=False),
            saved_metrics=_saved_metrics(results, split),
            limits=_limits(results, split),
            command=private_command(results["command"]),
            settings={stage: _settings(config) for stage, config in stages_config.items()},
            papers={stage: papers for stage, (papers, _) in sources.items() if papers},
            citations=list(dict.fromkeys(citations)),
            base_license=_license_of_backbone(base_model),
            fingerprints=results["data"].get("fingerprints", {}),
            uses_adapter=uses_adapter,
            stock=pooling == "stock",
            model_path=model_path,
            adapter_only=adapter_only,
            adapter_path=adapter_path,
            adapter_subfolder=adapter_subfolder,
        )
    )
    metadata = _metadata(results, base_model, license, dataset_name, uses_adapter, adapter_only)
    return f"---\n{metadata.to_yaml()}\n---\n\n{body}"


def _metadata(
    results: Mapping[str, Any],
    base_model: str,
    license: str | None,
    dataset_name: str,
    uses_adapter: bool,
    adapter_only: bool,
) -> ModelCardData:
    methods = [stage["name"].replace("_", "-") for stage in results["stages"]]
    base, dataset, task = hub_id(base_model), hub_id(dataset_name), task_facts(results)
    return ModelCardData(
        base_model=base,
        base_model_relation=("adapter" if adapter_only else "finetune") if base else None,
        datasets=[dataset] if dataset and "/" in dataset else None,
        library_name="peft" if adapter_only else "transformers",
        license=license,
        pipeline_tag=task.pipeline_tag,
        tags=[task.pipeline_tag, "semi-supervised-learning", "hfssl", *methods, *(["lora"] * uses_adapter)],
        metrics=[metric.hub_type for metric in task.metrics if metric.on_hub],
        model_name=f"{slug(shown_base_model(base_model))}-{slug(dataset_name)}",
        eval_results=_eval_results(results, dataset_name),
    )


def _eval_results(results: Mapping[str, Any], dataset_name: str) -> list[EvalResult] | None:
    """Returns the saved model's metrics on `test`, else on `validation`; `None` without any."""
    split = primary_split(results)
    metrics, task = _saved_metrics(results, split), task_facts(results)
    if not metrics:
        return None
    return [
        EvalResult(
            task_type=task.pipeline_tag,
            task_name=task.pipeline_tag.replace("-", " ").title(),
            dataset_type=slug(dataset_name),
            dataset_name=" ".join(dataset_name.split()),
            dataset_split=split,
            metric_type=metric.hub_type,
            metric_name=metric.long_name or metric.title,
            metric_value=round(metrics[metric.name], 6),
        )
        for metric in task.metrics
        if metric.hub_type
    ]


def _saved_metrics(results: Mapping[str, Any], split: str | None) -> Mapping[str, float] | None:
    """Returns the metrics of the model in `model/`, with its temperature; else those of the final stage."""
    saved = results["final_metrics"].get(split)
    final = final_stage(results, split)
    measured = [stage["metrics"].get(split) for stage in results["stages"] if stage["name"] == final]
    return saved or (measured[0] if measured else None)


def _gain(verdict: Mapping[str, Any]) -> str | None:
    if verdict["gain"] is None:
        return None
    return f"{signed_points(verdict['gain'])} points (interval {signed_interval(verdict['interval'])})"


def _limits(results: Mapping[str, Any], split: str | None) -> list[str]:
    """Lists limits that follow from the results; limits of all such models are in the template."""
    metrics, rows = _saved_metrics(results, split), rows_of(results, split) if split else 0
    limits, decision = [], task_facts(results).decision
    interval = decision.interval(metrics[decision.name], rows) if metrics else None
    if interval is not None:
        low, high = interval
        limits.append(
            f"Its {decision.title} was measured on {rows:,} rows: the 95% interval for rows like these is "
            f"{percent(low)}% to {percent(high)}%."
        )
    if split == "validation":
        limits.append(
            "There was no test part. The validation rows also selected the model, so its numbers here are "
            "somewhat too good."
        )
    if split == OUT_OF_FOLD:
        limits.append(
            "There was no test part. Its numbers here are those of models that were trained in the same way without a "
            "part of the labels, which they then predicted; they also selected the model."
        )
    if split is None:
        limits.append("No labels were held out, so its accuracy is unknown.")
    if results["temperature"] is None:
        limits.append("Its probabilities are not calibrated, as no labels were held out: use them for ranking only.")
    interval = results["verdict"]["interval"]
    if interval is not None and interval[0] <= 0 <= interval[1]:
        limits.append("The interval of the gain from unlabeled data includes zero.")
    limits.append(f"This is one run, with seed {results['seed']}. With few labels, the numbers differ between seeds.")
    return limits


def _interval(decision: Metric, metrics: Mapping[str, float], rows: int) -> str:
    """Formats the 95% interval of the decision metric, in percent; returns a dash without one."""
    found = decision.interval(metrics.get(decision.name), rows)
    return "–" if found is None else f"{percent(found[0])} to {percent(found[1])}"


def _measured(task: TaskFacts, metrics: Mapping[str, float] | None) -> str:
    """Formats the metrics of the short tables as a sentence, the first in bold."""
    if not metrics:
        return ""
    values = [metric.with_unit(metrics.get(metric.name)) for metric in task.tabled]
    names = [(metric.long_name.lower() or metric.title) if metric.note else metric.title for metric in task.tabled]
    first, *others = [f"{name} {value}" for name, value in zip(names, values, strict=True)]
    return ", ".join([f"**{first}**", *others])


def _license_of_backbone(base_model: str) -> str | None:
    """Returns the license in the base model's card, if its folder holds one."""
    card = Path(base_model) / "README.md"
    if not card.is_file():
        return None
    try:
        found = ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.license
    except (ValueError, OSError, YAMLError):  # the file may not be a valid card
        return None
    return found if isinstance(found, str) else None


def _settings(config: Mapping[str, Any]) -> str:
    shown = _shown(config)
    return json.dumps(shown, indent=2, ensure_ascii=False, default=str) if shown else ""


def _shown(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings without prose and, at any depth, without empty values."""
    nested = {n: _shown(v) if isinstance(v, Mapping) else private(v) for n, v in config.items()}
    return {name: value for name, value in nested.items() if name not in PROSE_KEYS and value != {}}
