"""`fit`: the main job, stage by stage, each stage resumable and leaving its evidence."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from hfssl.config.arguments import FitArguments
from hfssl.data.audit import audit, part_fingerprint, released
from hfssl.data.prepare import make_splits
from hfssl.data.splits import SemiSupervisedSplits
from hfssl.errors import ConfigurationError
from hfssl.evaluation.verdict import Verdict, judge
from hfssl.functional.class_priors import given_prior
from hfssl.models.backbones import check_backbone, check_masked_lm, load_tokenizer
from hfssl.pipeline.artifacts import save_outcome
from hfssl.pipeline.presets import PRESETS
from hfssl.pipeline.run_folder import RunFolder
from hfssl.pipeline.runner import REFIT, StageRunner
from hfssl.reporting.trainer_card import VERSIONED

__all__ = ["FitResult", "fit"]

logger = logging.get_logger(__name__)

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class FitResult:
    """What `fit` leaves: `results` is the content of `results.json`, `output_dir` the folder that holds everything."""

    output_dir: Path
    results: dict[str, Any]

    def model(self) -> PreTrainedModel:
        """The kept model, with its label names."""
        from hfssl.models.auto import from_pretrained

        return from_pretrained(self.output_dir / "model")


def fit(train: str, *, output_dir: str, **options: Any) -> FitResult:
    """Turns a table with a few labels into a saved, explained model.

    The stages: load and audit, split, pretext (by preset), labels only, self-training, verdict, refit on all labels
    (by preset), calibration, and evaluation with report, card and checkpoints. `output_dir` gets `results.json`,
    `report.html`, `README.md`, `model/`, `adapter/` (with LoRA), `splits/` and `stages/`.

    Args:
        train (`str`): Table to learn from; rows without a label are unlabeled.
        output_dir (`str`): Folder for everything; see `resume` and `overwrite_output_dir`.
        options: The other fields of [`FitArguments`], which are the flags of `hfssl fit`.

    Raises:
        ConfigurationError: options that do not fit together or a folder that holds another run; all at once.
        DataError: a table that cannot be used as given.
        ModelError: a backbone that cannot be used as given.
        TrainingError: a loss that is not finite.
    """
    arguments = FitArguments(train=train, output_dir=output_dir, **options)
    run = RunFolder(
        output_dir, arguments.keywords(), resume=arguments.resume, overwrite=arguments.overwrite_output_dir
    )
    check_backbone(arguments.backbone)
    tokenizer = load_tokenizer(arguments.backbone, max_length=arguments.max_length)
    splits = _data(arguments, run)
    stages = StageRunner(arguments, PRESETS[arguments.preset], run, splits, tokenizer)
    records = stages.run()
    audit([splits.manifest, *stages.evidence.manifests()]).raise_if_leaky()
    probs, labels, remarks = stages.evidence.of(records)
    verdict = judge(probs, labels, alarms=stages.evidence.alarms())
    verdict = replace(verdict, reasons=[*verdict.reasons, *remarks, *stages.evidence.notes()])
    if stages.refits:
        records[REFIT] = stages.refit(verdict.chosen)
        audit([released(splits.manifest, "validation"), *records[REFIT]["manifests"]]).raise_if_leaky()
    results = _results(arguments, splits, records, verdict, stages.evidence.test_gains(records))
    save_outcome(arguments, run, splits, stages, results)
    return FitResult(run.path, results)


def _data(arguments: FitArguments, run: RunFolder) -> SemiSupervisedSplits:
    """Stages 1 and 2: the split is made once and then read from the folder, also when the tables change later."""
    if not run.resumed:
        splits = make_splits(arguments, arguments.seed)
        if arguments.class_prior is not None:
            given_prior(arguments.class_prior, splits.manifest["label_names"])
            if not len(splits["unlabeled"]):
                raise ConfigurationError(
                    "class_prior are those of the unlabeled rows, of which there are none: add some, or leave it out."
                )
        by_preset = PRESETS[arguments.preset].pretext is not None
        if len(splits["unlabeled"]) and (by_preset if arguments.pretext is None else arguments.pretext):
            check_masked_lm(arguments.backbone)
        run.open()  # not before all input is known to be good
        splits.save(run.splits)
    splits = SemiSupervisedSplits.load(run.splits)
    for warning in splits.manifest["warnings"]:
        logger.warning(warning)
    return splits


def _results(
    arguments: FitArguments,
    splits: SemiSupervisedSplits,
    records: Mapping[str, Mapping[str, Any]],
    verdict: Verdict,
    test_gains: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The content of `results.json`; `temperature` is filled in by calibration."""
    return {
        "schema_version": SCHEMA_VERSION,
        "seed": arguments.seed,
        "command": fit_command(arguments),
        "versions": {name: version(name) for name in VERSIONED},
        "hardware": {"machine": platform.machine(), "threads": _threads(), "python": platform.python_version()},
        "data": {
            "counts": splits.manifest["counts"],
            "label_names": splits.manifest["label_names"],
            "warnings": splits.manifest["warnings"],
            "fingerprints": {
                role: {"rows": len(part["fingerprints"]), "fingerprint": part_fingerprint(part["fingerprints"])}
                for role, part in splits.manifest["roles"].items()
                if part["fingerprints"]
            },
        },
        "stages": [
            {"name": name, **{key: record[key] for key in ("metrics", "seconds", "attempts", "config")}}
            for name, record in records.items()
        ],
        "test_gains": test_gains,
        "verdict": verdict.as_dict(),
        "chosen": verdict.chosen,
        "kept": REFIT if REFIT in records else verdict.chosen,
        "temperature": None,
    }


def fit_command(arguments: FitArguments) -> str:
    """The `hfssl fit` command line that repeats this run."""
    words = ["hfssl", "fit"]
    for entry in fields(arguments):
        value = getattr(arguments, entry.name)
        if value is None or value == entry.default or entry.name in ("resume", "overwrite_output_dir", "quiet"):
            continue
        flag = "--" + entry.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, str(value)]
    return shlex.join(words)


def _threads() -> int:
    import torch

    return torch.get_num_threads()
