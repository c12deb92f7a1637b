"""`fit`: the main job, stage by stage; each stage can be resumed."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hfssl.config.arguments import FitArguments
from hfssl.config.methods import METHODS
from hfssl.config.stages import STAGES
from hfssl.data.audit import audit, released
from hfssl.data.language_fit import language_warnings
from hfssl.data.prepare import make_splits
from hfssl.data.splits import SemiSupervisedSplits
from hfssl.errors import ConfigurationError, DamagedFile
from hfssl.evaluation.baselines import PROBE
from hfssl.evaluation.verdict import Verdict, judge
from hfssl.functional.class_priors import given_prior
from hfssl.models.backbones import check_backbone, check_masked_lm, load_tokenizer
from hfssl.pipeline.artifacts import save_outcome
from hfssl.pipeline.budget import within_budget
from hfssl.pipeline.context import StageContext, make_context
from hfssl.pipeline.inputs import check_inputs, input_fingerprints, local_inputs
from hfssl.pipeline.plan import RunPlan, make_plan
from hfssl.pipeline.presets import PRESETS
from hfssl.pipeline.run_folder import RunFolder, check_finished
from hfssl.pipeline.runner import reported, run_final_stages, run_stages
from hfssl.pipeline.stage_record import StageRecord
from hfssl.pipeline.tidy import tidy
from hfssl.reporting.results import OUT_OF_FOLD, SCHEMA_VERSION, read_results
from hfssl.reporting.trainer_card import VERSIONED
from hfssl.tasks.registry import get_task

__all__ = ["FitResult", "fit"]

logger = logging.get_logger(__name__)

NOT_REPEATED = ("resume", "overwrite_output_dir", "quiet", "keep_stages")  # by the command line that repeats a run


@dataclass(frozen=True)
class FitResult:
    """Holds the result of `fit`.

    Attributes:
        output_dir (`Path`): Folder of all files of the run.
        results (`dict[str, Any]`): Content of `results.json`.

    Example:
        >>> import hfssl
        >>> options = {"preset": "quick", "rounds": 0, "pretext": False, "quiet": True}
        >>> result = hfssl.fit(table, output_dir=str(folder), backbone=backbone, **options)
        >>> sorted(result.model().config.id2label.values())
        ['no', 'yes']
    """

    output_dir: Path
    results: dict[str, Any]

    def model(self) -> PreTrainedModel:
        """Returns the final model, with its label names."""
        from hfssl.models.auto import from_pretrained

        return from_pretrained(self.output_dir / "model")


def fit(train: str, *, output_dir: str, **options: Any) -> FitResult:
    """Turns a table with a few labels into a saved, explained model.

    The stages: load and audit, split, pretext (by preset), labels only, folds of the labels, self-training, students
    of the folds (by preset), verdict, calibration, and evaluation with report, card and checkpoints. `output_dir` gets
    `results.json`, `report.html`, `README.md`, `model/`, `adapter/` (with LoRA), `splits/` and `stages/`.

    Args:
        train (`str`): Table to learn from; rows without a label are unlabeled.
        output_dir (`str`): Folder for all files of the run; see `resume` and `overwrite_output_dir`.
        options (`Any`): The other fields of [`FitArguments`], which are the flags of `hfssl fit`.

    Raises:
        ConfigurationError: Options do not fit together, or the folder holds another run; the error lists all problems.
        DataError: The table cannot be used as it is.
        ModelError: The backbone cannot be used as it is.
        DamagedFile: A file of the run that is resumed is not as it was written; the error says what to do.
        TrainingError: A loss is not finite.

    Example:
        >>> import hfssl
        >>> result = hfssl.fit(table, output_dir=str(folder), backbone=backbone, preset="quick", quiet=True)
        >>> result.results["final_stage"] in ("labels_only", "labels_only_after_pretext", "self_training", "refit")
        True
    """
    arguments = FitArguments(train=train, output_dir=output_dir, **options)
    run = RunFolder(
        output_dir,
        arguments.keywords(),
        resume=arguments.resume,
        overwrite=arguments.overwrite_output_dir,
        inputs=local_inputs(arguments).values(),
    )
    try:
        results = _finished_results(arguments, run) if run.resumed and run.finished else _run(arguments, run)
    except DamagedFile as error:
        raise run.explained(error) from None
    finally:
        run.close()
    return FitResult(run.path, results)


def _finished_results(arguments: FitArguments, run: RunFolder) -> dict[str, Any]:
    """Returns the results of a run that needs nothing but a check of its files."""
    run.open()
    check_inputs(arguments, run.inputs()["inputs"], run.path)
    check_finished(run.path)
    if not arguments.keep_stages:
        tidy(run.path)  # where a kill came between the results and this
    return read_results(run.path)


def _run(arguments: FitArguments, run: RunFolder) -> dict[str, Any]:
    """Runs the stages that are not done yet, and returns the results."""
    check_backbone(arguments.backbone)
    tokenizer = load_tokenizer(arguments.backbone, max_length=arguments.max_length)
    splits, plan = _data(arguments, run, tokenizer)
    context = within_budget(make_context(plan, run, splits, tokenizer))
    records = run_stages(context)
    audit([splits.manifest, *_manifests(records)]).raise_if_leaky()
    verdict = _judge(context, records)
    final = run_final_stages(context, verdict.selected_stage)
    if final:
        audit([released(splits.manifest, "validation"), *_manifests(final)]).raise_if_leaky()
    records |= final
    results = _results(context, reported(records), verdict, list(final or [verdict.selected_stage])[-1])
    save_outcome(context, records, results)
    if not arguments.keep_stages:
        tidy(run.path)
    return results


def _manifests(records: Mapping[str, StageRecord]) -> list[dict[str, Any]]:
    return [manifest for record in records.values() for manifest in record.manifests]


def _judge(context: StageContext, records: Mapping[str, StageRecord]) -> Verdict:
    """Returns the verdict on the stages, with their alarms, and with their notes among its reasons."""
    evidence = context.held_out.evidence(context.plan.judged)
    alarms = [alarm for record in records.values() for alarm in record.alarms]
    verdict = judge(evidence.probs, evidence.labels, alarms=alarms, task=context.task, **evidence.difference)
    notes = [note for record in records.values() for note in record.notes]
    if not len(evidence.labels) and (said := context.held_out.baselines(OUT_OF_FOLD).get(PROBE)) is not None:
        right = context.task.right(said, context.held_out.part_labels(OUT_OF_FOLD))
        notes.append(
            f"Logistic regression on the frozen backbone, each label predicted by the others, is right on "
            f"{right.sum()} of {len(right)}."
        )
    return replace(verdict, reasons=[*verdict.reasons, *evidence.remarks, *notes])


def _data(
    arguments: FitArguments, run: RunFolder, tokenizer: PreTrainedTokenizerBase
) -> tuple[SemiSupervisedSplits, RunPlan]:
    """Returns splits and plan; a resumed run reads its splits from the folder, also after a change of the tables."""
    preset = PRESETS[arguments.preset]
    if run.resumed:
        run.open()
        check_inputs(arguments, run.inputs()["inputs"], run.path)
        splits = SemiSupervisedSplits.load(run.splits)
        plan = make_plan(arguments, preset, splits)
    else:
        column = get_task(arguments.task).label_column
        held_out = arguments.validation_fraction
        splits = make_splits(arguments, arguments.seed, label_column=column, validation_fraction=held_out)
        texts = [text for part in ("labeled", "unlabeled") for text in splits[part]["text"][:]]
        splits.manifest["warnings"] += language_warnings(texts, tokenizer, arguments.backbone)
        if arguments.class_prior is not None:
            given_prior(arguments.class_prior, splits.manifest["label_names"])
            if not len(splits["unlabeled"]):
                raise ConfigurationError(
                    "class_prior is that of the unlabeled rows, of which there are none: add some, or leave it out."
                )
        plan = make_plan(arguments, preset, splits)
        _check_methods(plan)
        if "pretext" in plan.stages:
            check_masked_lm(arguments.backbone)
        fingerprints = input_fingerprints(arguments)
        run.open()  # only after all checks of the input
        splits.save(run.splits)
        run.save_inputs(fingerprints)
        splits = SemiSupervisedSplits.load(run.splits)
    for warning in splits.manifest["warnings"]:
        logger.warning(warning)
    return splits, plan


def _check_methods(plan: RunPlan) -> None:
    """Refuses a plan with a method that is not defined for the task of the run.

    Raises:
        ConfigurationError: names the first such method, and those that are defined.
    """
    methods = [STAGES[name].method for name in plan.stages]
    methods += ["contrastive"] if plan.preset.contrastive is not None else []
    supported = {name: method.tasks for name, method in METHODS.items()}
    for method in methods:
        if method is not None:
            plan.task.require_method(method, supported)


def _results(
    context: StageContext, records: Mapping[str, StageRecord], verdict: Verdict, final_stage: str
) -> dict[str, Any]:
    """Returns the content of `results.json`; `temperature` and `final_metrics` are filled in by calibration."""
    arguments, splits = context.plan.arguments, context.splits
    counts, measured = dict(splits.manifest["counts"]), context.held_out.out_of_fold_metrics(list(records))
    if measured:
        judged = splits["labeled"].select(np.flatnonzero(context.plan.folds >= 0))
        counts[OUT_OF_FOLD] = context.task.label_column.counts(judged["label"][:], splits.label_names)
    return {
        "schema_version": SCHEMA_VERSION,
        "seed": arguments.seed,
        "task": context.task.facts().as_dict(),
        "command": fit_command(arguments),
        "versions": {name: version(name) for name in VERSIONED},
        "hardware": {
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "cpu_features": torch.backends.cpu.get_cpu_capability(),
        },
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": context.run_folder.inputs()["inputs"],
        "data": {
            "counts": counts,
            "label_names": splits.manifest["label_names"],
            "warnings": splits.manifest["warnings"],
            "fingerprints": {
                role: {"rows": len(part["fingerprints"]), "fingerprint": splits.manifest["part_fingerprints"][role]}
                for role, part in splits.manifest["roles"].items()
                if part["fingerprints"]
            },
        },
        "stages": [
            {
                "name": name,
                "metrics": record.metrics | measured.get(name, {}),
                **{key: getattr(record, key) for key in ("seconds", "attempts", "config")},
            }
            for name, record in records.items()
        ],
        "baselines": context.held_out.baseline_metrics(),
        "standing": context.held_out.standing(final_stage, verdict.selected_stage),
        "test_gains": context.held_out.test_gains(records),
        "verdict": verdict.as_dict(),
        "selected_stage": verdict.selected_stage,
        "final_stage": final_stage,
        "temperature": None,
        "final_metrics": {},
    }


def fit_command(arguments: FitArguments) -> str:
    """Returns the `hfssl fit` command line that repeats this run."""
    words = ["hfssl", "fit"]
    for entry in fields(arguments):
        value = getattr(arguments, entry.name)
        if value is None or value == entry.default or entry.name in NOT_REPEATED:
            continue
        flag = "--" + entry.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, str(value)]
    return shlex.join(words)
