"""A cell of `compare.py`: one method on one split, measured in a process of its own, and kept as JSON.

Nothing heavy is imported here, because the process that starts the cells reads the names, too, and so that a cell
holds only what its method needs.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

import numpy as np
from code_versions import used_code
from grid import HERE, ROOT
from peers import PEERS, Task

from hfssl.runtime.files import write_json

if TYPE_CHECKING:
    from hfssl.data.splits import SemiSupervisedSplits

__all__ = ["HFSSL", "METHODS", "SPLITS", "run_job", "run_process"]

T = TypeVar("T")
HFSSL = {f"hfssl_{preset}": preset for preset in ("quick", "standard", "thorough")}
METHODS = [*PEERS, *HFSSL]
SPLITS = "splits"  # the job that makes the rows of a cell
PACKAGES = ["hfssl", "torch", "transformers", "datasets", "peft", "scikit-learn", "setfit", "sentence-transformers"]
LOG_LINES = 30  # of a process that failed


# --- in the process that starts the cells ----------------------------------------------------------------------------


def run_process(job: Mapping[str, Any], checkout: Path = ROOT) -> bool:
    """Runs a job to its end in a process of its own; what it prints is shown only if it fails.

    Args:
        job: as in `run_job`.
        checkout: of this repository; its `benchmarks/compare.py` and its hfssl do the work.
    """
    paths = [str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(paths),
    }
    words = [sys.executable, str(checkout / HERE.relative_to(ROOT) / "compare.py"), "--cell", json.dumps(job)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        status = subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, env=environment).returncode
        if status:
            log.seek(0)
            print("".join(log.readlines()[-LOG_LINES:]), file=sys.stderr)
    return status == 0


# --- in the process of a cell ----------------------------------------------------------------------------------------


def run_job(job: dict[str, Any]) -> None:
    """Makes a split, or runs one method on it and keeps what came out as JSON.

    Args:
        job: `method`, `seed`, `data` (fields of `DataArguments`), `splits` (folder) and, but for `SPLITS`, `dataset`,
            `labels_per_class`, `backbone`, `output` (file), `command` and `timed` (whether seconds are kept).
            Optional: `planted` (see `pools.plant`), `overrides` (see `variants.applied`), `logits` (file), `labels`
            (what else is kept in the cell) and `started` (when the cell was begun, in seconds since 1970).
    """
    if job["method"] == SPLITS:
        from hfssl.config.arguments import DataArguments
        from hfssl.data.prepare import make_splits

        splits = make_splits(DataArguments(**job["data"]), job["seed"])
        _planted(splits, job).save(job["splits"])
        return
    with tempfile.TemporaryDirectory() as folder:
        run = _run_hfssl if job["method"] in HFSSL else _run_peer
        outcome, splits = run(job, Path(folder))
    if not job["timed"]:
        for spent in (outcome, *outcome.get("stages", {}).values()):
            spent |= dict.fromkeys(spent.keys() & {"seconds", "cpu_seconds"})
    write_json(
        job["output"],
        {
            **{name: job[name] for name in ("dataset", "labels_per_class", "method", "seed")},
            **job.get("labels", {}),
            **outcome,
            **({"wall_seconds": time.time() - job["started"]} if "started" in job else {}),
            "peak_memory_bytes": _peak_memory(),
            "rows": _rows(splits),
            "command": job["command"],
            **_surroundings(),
            "code": used_code(job["method"]),
        },
    )


def _planted(splits: SemiSupervisedSplits, job: Mapping[str, Any]) -> SemiSupervisedSplits:
    if not job.get("planted"):
        return splits
    from pools import plant

    return plant(splits, **job["planted"], seed=job["seed"])


def _run_peer(job: dict[str, Any], folder: Path) -> tuple[dict[str, Any], SemiSupervisedSplits]:
    from hfssl.data.splits import SemiSupervisedSplits

    splits = SemiSupervisedSplits.load(job["splits"])
    peer = PEERS[job["method"]]
    for name in peer.modules:
        import_module(name)
    task = _task(splits, job["backbone"], job["seed"], folder)
    answer, spent = _timed(lambda: peer.run(task))
    outcome = {
        **_measured(answer.probs, np.asarray(splits["test"]["label"][:], dtype=np.int64)),
        **spent,
        "settings": peer.settings,
        "notes": answer.notes,
    }
    return outcome, splits


def _measured(probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    from hfssl.metrics.calibration import debiased_ece
    from hfssl.metrics.classification import evaluate_probs

    return {**evaluate_probs(probs, labels), "debiased_ece": debiased_ece(probs, labels)}


def _task(splits: SemiSupervisedSplits, backbone: str, seed: int, folder: Path) -> Task:
    """The rows as a peer gets them: what hfssl holds back of them for its choices is the peer's own to train on."""
    labeled, pool = ("labeled", "validation"), ("unlabeled", "proxy")
    return Task(
        backbone=backbone,
        texts=[text for part in labeled for text in splits[part]["text"][:]],
        labels=np.array([label for part in labeled for label in splits[part]["label"][:]], dtype=np.int64),
        unlabeled=[text for part in pool for text in splits[part]["text"][:]],
        test=splits["test"]["text"][:],
        num_classes=len(splits.label_names),
        seed=seed,
        folder=folder,
    )


def _run_hfssl(job: dict[str, Any], folder: Path) -> tuple[dict[str, Any], SemiSupervisedSplits]:
    """All of `fit`; the seconds in which it makes the split are taken off, as for all."""
    from kept_logits import keep_logits, scored_test, shipped_model, stage_calibration
    from variants import applied

    import hfssl.pipeline.fit as pipeline

    made: list[tuple[SemiSupervisedSplits, dict[str, float]]] = []
    make_splits = pipeline.make_splits

    def timed_splits(*args: Any, **kwargs: Any) -> SemiSupervisedSplits:
        splits, spent = _timed(lambda: _splits_of_fit(job, make_splits, *args, **kwargs))
        made.append((splits, spent))
        return splits

    preset, run = HFSSL[job["method"]], folder / "run"
    options = {"backbone": job["backbone"], "preset": preset, "seed": job["seed"], "quiet": True}
    with (
        applied(preset, job.get("overrides") or {}) as (settings, more),
        scored_test(wanted=bool(job.get("logits"))),
        patch.object(pipeline, "make_splits", timed_splits),
    ):
        fitted, spent = _timed(lambda: pipeline.fit(**job["data"], **options | more, output_dir=str(run)))
    results, [(splits, making)] = fitted.results, made
    if job.get("logits"):
        keep_logits(run, splits, Path(job["logits"]))
    final = results["final_metrics"]["test"]
    outcome = {
        **final,
        **{name: spent[name] - making[name] for name in spent},
        "settings": {"preset": preset, **settings},
        "notes": {"test_scored_by_teachers": True} if job.get("logits") else {},
        "selected_stage": results["selected_stage"],
        "final_stage": results.get("final_stage"),
        "temperature": results["temperature"],
        "verdict": results["verdict"],
        "stages": {
            stage["name"]: {**stage["metrics"]["test"], "seconds": stage["seconds"]}
            for stage in results["stages"]
            if stage["metrics"].get("test")
        },
    }
    for stage, value in stage_calibration(run, splits, list(outcome["stages"])).items():
        outcome["stages"][stage]["debiased_ece"] = value
    return outcome | shipped_model(run, splits, results), splits


def _splits_of_fit(
    job: Mapping[str, Any], make_splits: Callable[..., SemiSupervisedSplits], arguments: Any, seed: int, **options: Any
) -> SemiSupervisedSplits:
    """The split that `fit` makes, or has made for another cell with the same arguments: near duplicates take time."""
    from hfssl.config.arguments import DataArguments
    from hfssl.data.splits import SemiSupervisedSplits

    given = {field.name: getattr(arguments, field.name) for field in fields(DataArguments)}
    plain = {name: value for name, value in options.items() if name != "label_column"}  # there is one, by the task
    folder = Path(f"{job['splits']}-{_sha256([given, seed, plain])[:16]}")
    if not folder.exists():
        _planted(make_splits(arguments, seed, **options), job).save(folder)
    return SemiSupervisedSplits.load(folder)


def _timed(work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """What `work` returns, its seconds, and those of all cores: far fewer of these than usual, and it had to wait."""
    started, cpu_started = time.perf_counter(), time.process_time()
    result = work()
    return result, {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu_started}


def _rows(splits: SemiSupervisedSplits) -> dict[str, Any]:
    """How many rows each part has, and hashes of which: all that are compared must have the same.

    `digest` is that of the five parts. `whole_digest` joins what `fit` may divide in another way than peers do: the
    labels, and the pool.
    """
    rows = {role: part["fingerprints"] for role, part in splits.manifest["roles"].items()}
    whole = {
        "labels": sorted(rows["labeled"] + rows["validation"]),
        "pool": sorted(rows["unlabeled"] + rows["proxy"]),
        "test": sorted(rows["test"]),
    }
    counts = {role: len(part) for role, part in splits.items()}
    return counts | {"digest": _sha256(rows), "whole_digest": _sha256(whole)}


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _peak_memory() -> int:
    """Most resident memory of this process, in bytes; the kernel counts from the parent's on, which is small."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _surroundings() -> dict[str, Any]:
    git = ["git", "--no-optional-locks", "describe", "--always", "--dirty"]
    asked = subprocess.run(git, cwd=HERE, capture_output=True, text=True)
    return {
        "commit": asked.stdout.strip() or None,
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str | None:
    """The name of the CPU, where the system has it in a file."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
