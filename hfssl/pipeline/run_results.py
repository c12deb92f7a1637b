"""The content of `results.json`: what a run of `fit` found."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from hfssl.config.arguments import FitArguments
from hfssl.evaluation.verdict import Verdict
from hfssl.pipeline.context import StageContext
from hfssl.pipeline.stage_record import StageRecord
from hfssl.reporting.results import OUT_OF_FOLD, SCHEMA_VERSION
from hfssl.reporting.trainer_card import VERSIONED

__all__ = ["fit_command", "run_results"]

NOT_REPEATED = ("resume", "overwrite_output_dir", "quiet", "keep_stages")  # by the command line that repeats a run


def run_results(
    context: StageContext, records: Mapping[str, StageRecord], verdict: Verdict, final_stage: str
) -> dict[str, Any]:
    """Returns the content of `results.json`; `temperature` and `final_metrics` are filled in by calibration.

    Args:
        context (`StageContext`): Context of the run.
        records (`Mapping[str, StageRecord]`): Records of its stages.
        verdict (`Verdict`): The verdict.
        final_stage (`str`): Stage whose model is handed over.
    """
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
    """Returns the `hfssl fit` command line that repeats this run; data in memory is described there, not repeated.

    Args:
        arguments (`FitArguments`): Arguments of the run.
    """
    words = ["hfssl", "fit"]
    for entry in fields(arguments):
        value = getattr(arguments, entry.name)
        if value is None or value == entry.default or entry.name in NOT_REPEATED:
            continue
        flag = "--" + entry.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, dict):
            words += [flag, ", ".join(f"{name}={number}" for name, number in value.items())]
        else:
            words += [flag, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return shlex.join(words)
