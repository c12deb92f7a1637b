"""Which parts of `standard` pay: each taken away or added alone, and the ablation that UST's field owes.

    python benchmarks/ablation.py                                    # all variants on trec6 and sst2, seed 0; a day
    python benchmarks/ablation.py --variants standard one_teacher --datasets trec6 --seeds 0 1 2
    python benchmarks/ablation.py --family field                     # {pretext} x {plain, weighted} x {three measures}
    python benchmarks/ablation.py --show                             # the table of what is kept
    python benchmarks/ablation.py --wide --max-hours 3               # the pieces of variants.py, on thirteen data sets
    python benchmarks/ablation.py --wide --show                      # ... the table, and what is replayed from logits

Each finished cell is kept in `benchmarks/results/ablation.json` with its command, and is run again only for another
command. Variants that learn alike from the labels share the models that do: `fit` resumes to the same bits. What is to
leave or to enter a preset is chosen on rows cut off the training parts, never on the real test parts. `--no-refit`
halves the time: the refit repeats what the stages before it are made of. `--labels-only` is for what changes only
that.

    python benchmarks/development.py --output-dir /tmp/development
    python benchmarks/ablation.py --data /tmp/development --results /tmp/ablation.json --datasets trec6 --no-refit
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import replay
import wide
from fit import run_cell
from grid import GRID, HERE, SHARED
from variants import VARIANTS as PIECES

from hfssl.config.stages import LABELS_ONLY, STAGES
from hfssl.pipeline.presets import PRESETS, PRETEXT_ON_REQUEST, Preset
from hfssl.runtime.files import write_json

RESULTS = HERE / "results" / "ablation.json"
STANDARD = PRESETS["standard"]
# What of a run is made of the labels alone, or of the backbone.
LEARNED_FROM_LABELS = (
    "hfssl_run.json",
    "inputs.json",
    "settings.json",
    "splits",
    "stages/pretext",
    "stages/labels_only",
    "stages/labels_only_after_pretext",
    "stages/*/teacher-*",
)


def _teacher(**settings: Any) -> Preset:
    return replace(STANDARD, supervised=STANDARD.supervised | settings)


def _student(**settings: Any) -> Preset:
    return replace(STANDARD, self_training=STANDARD.self_training | settings)


def _regularized(**settings: Any) -> Preset:
    """`standard` with 80 steps of fine-tuning after the contrastive stage: regularisers need steps.

    What students cannot have is left to the teachers.
    """
    not_for_students = {name: 0.0 for name in ("r_drop_alpha", "mixup_alpha") if name in settings}
    fine_tuned = _teacher(max_steps=80, **settings)
    return replace(fine_tuned, self_training=fine_tuned.self_training | not_for_students)


def _unfrozen(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings, "freeze_embeddings": False}


def _field() -> dict[str, Preset]:
    """{pretext on, off} x {plain self-training, weighted} x {measure of uncertainty}, all else as UST has it."""
    ust = {
        "selection_strategy": "easy",
        "selection_fraction": 0.5,
        "soft_targets": False,
        "distribution_alignment": "none",
        "num_teachers": 1,
    }
    ust |= {"mc_passes": 10, "retrain_head": False}
    variants = {}
    for pretext in (None, PRETEXT_ON_REQUEST):
        for weighting in ("uniform", "log_variance"):
            for acquisition in ("variance", "bald", "entropy"):
                preset = _student(**ust, weighting=weighting, acquisition=acquisition)
                name = f"{'pretext' if pretext else 'plain'}/{weighting}/{acquisition}"
                variants[name] = replace(preset, pretext=pretext)
    return variants


FAMILIES: dict[str, dict[str, Preset]] = {
    "without": {
        "standard": STANDARD,
        "no_contrastive": replace(STANDARD, contrastive=None),
        "whole_contrastive": replace(STANDARD, contrastive=STANDARD.contrastive | {"wise_ft_alpha": 1.0}),
        "heads_teach": _student(teacher_probe=False),
        "from_pretrained": _student(student_init="pretrained"),
        "no_ood_filter": _student(ood_filter=False),
        "one_teacher": _student(num_teachers=1),
        "no_alignment": _student(distribution_alignment="none"),
        "estimated_alignment": _student(distribution_alignment="estimated"),
        "labeled_alignment": _student(distribution_alignment="labeled"),
        "no_probe": _student(backbone_probe=False),
        "no_names": _student(label_name_prior=False),
        "hard_targets": _student(soft_targets=False),
        "log_variance": _student(weighting="log_variance"),
        "easy_half": _student(selection_strategy="easy", selection_fraction=0.5),
        "all_embeddings": replace(_teacher(freeze_embeddings=False), contrastive=_unfrozen(STANDARD.contrastive)),
        "trained_head": _student(retrain_head=False),
        "fewer_steps": _student(max_steps=60),
    },
    "regularizers": {  # in addition to fine-tuning without any of them, the first
        "fine_tuned": _regularized(),
        "r_drop": _regularized(r_drop_alpha=1.0),
        "mixup": _regularized(mixup_alpha=0.4),
        "l2_sp": _regularized(l2_sp_alpha=0.01),
        "layerwise": _regularized(layerwise_lr_decay=0.8),
        "average": _regularized(weight_average_decay=0.98),
        "label_smoothing": _regularized(label_smoothing_factor=0.1),
    },
    "with": {
        "class_means": _teacher(head_init="class_means"),
        "soup": _student(model_soup=True),
        "cosine_teacher": replace(STANDARD, teacher_overrides=({"contrastive_loss": "cosine"},)),
        "cosine_soup": replace(_student(model_soup=True), teacher_overrides=({"contrastive_loss": "cosine"},)),
        "sharpen_temperature": _student(sharpen_temperature=0.5),
        "graph_agreement": _student(label_spreading="agreement"),
        "graph_labels": _student(label_spreading="labels"),
        "neighbors": _student(knn_smoothing=0.3),
        "two_rounds": _student(rounds=2),
        # More of what `standard` spends: steps, teachers.
        "longer_contrastive": replace(STANDARD, contrastive=STANDARD.contrastive | {"max_steps": 200}),
        "longer_student": _student(max_steps=300),
        "five_teachers": replace(_student(num_teachers=5), teacher_overrides=(*STANDARD.teacher_overrides, {})),
        "pretext": replace(STANDARD, pretext=PRESETS["thorough"].pretext),
    },
    "field": _field(),
}  # fmt: skip
VARIANTS = {name: preset for family in FAMILIES.values() for name, preset in family.items()}


def reference(variant: str) -> str:
    """The variant that another one is compared with."""
    regularizes = variant != "fine_tuned" and variant in FAMILIES["regularizers"]
    return "fine_tuned" if regularizes else "standard"


def run_variant(preset: Preset, shared: Path, folder: Path, labels: int, seed: int, **options: Any) -> dict[str, Any]:
    """One cell: `run_cell` with `preset` in the place of `standard`.

    Args:
        preset: of the variant.
        shared: folder in which runs of this data set, seed and these options leave each other the models that have
            learned from labels alone.
        folder, labels, seed, options: as in `run_cell`.
    """
    common = shared / _digest(preset)
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        _copy_learned(common, run)
        before, PRESETS["standard"] = PRESETS["standard"], preset
        try:
            cell = run_cell(folder, labels, "standard", seed, run=run, keep_stages=True, **options)
        finally:
            PRESETS["standard"] = before
        _copy_learned(run, common)
    for stage in cell["stages"].values():
        del stage["seconds"]  # part of the work may have been done for another variant
    return cell


def _digest(preset: Preset) -> str:
    """The same for presets that learn alike from labels alone, pretext included."""
    alike = [preset.supervised, preset.contrastive, preset.teacher_overrides, preset.pretext]
    return hashlib.sha256(json.dumps(alike, sort_keys=True).encode()).hexdigest()[:16]


def _copy_learned(source: Path, target: Path) -> None:
    for pattern in LEARNED_FROM_LABELS:
        for path in source.glob(pattern):
            place = target / path.relative_to(source)
            if path.is_dir():
                shutil.copytree(path, place, dirs_exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place)


def show(kept: Mapping[str, Mapping[str, Any]]) -> None:
    """Mean accuracy of each stage in points, and the difference over the cells that both have.

    To `standard`; of a regulariser to `fine_tuned`, as of that to `standard`. Labels only on a backbone after pretext
    are compared with those on the backbone as it was.
    """
    stages = [name for name, stage in STAGES.items() if stage.product in ("classifier", "final")]
    print(f"\n{'variant':<28}{'cells':>6}" + "".join(f"{STAGES[stage].model:>17}{'':>8}" for stage in stages))
    for variant in (name for name in VARIANTS if name in kept):
        cells, base = kept[variant], kept.get(reference(variant), {})
        line = f"{variant:<28}{len(cells):>6}"
        for stage in stages:
            own = {name: _accuracy(cell, stage) for name, cell in cells.items() if _accuracy(cell, stage) is not None}
            rivals, rival = (cells, LABELS_ONLY) if stage == "labels_only_after_pretext" else (base, stage)
            both = [own[name] - there for name in own if (there := _accuracy(rivals.get(name), rival)) is not None]
            line += f"{statistics.mean(own.values()):>17.1f}" if own else f"{'-':>17}"
            line += f" ({statistics.mean(both):+.1f})".ljust(8) if both else " " * 8
        print(line)


def _accuracy(cell: Mapping[str, Any] | None, stage: str) -> float | None:
    found = (cell or {}).get("stages", {}).get(stage)
    return None if found is None else 100 * found["test"]["accuracy"]


def _command(variant: str, dataset: str, seed: int, options: argparse.Namespace) -> str:
    """The command line that runs one cell."""
    words = [f"python benchmarks/ablation.py --variants {variant} --datasets {dataset} --seeds {seed}"]
    words += [f"--max-unlabeled {options.max_unlabeled}", "--no-refit" * options.no_refit]
    words += ["--labels-only" * options.labels_only, f"--data {options.data}" * (options.data != SHARED)]
    return " ".join(word for word in words if word)


def run_wide(options: argparse.Namespace) -> int:
    """Each piece of `variants.py` against `standard`, 13 cells of the wide grid each; then what needs no training."""
    words = ["--rows", "development", "--budgets", "low", "--methods", "hfssl_standard", "--seeds", *options.seeds]
    words += ["--max-hours", options.max_hours, *(word for name in PIECES for word in ("--variant", name))]
    status = wide.main([str(word) for word in words] + ["--show"] * options.show)
    if any(replay.LOGITS.glob("*.npz")):
        print(f"\nFrom kept logits, nothing trained:\n\n{replay.replayed(replay.LOGITS)}")
    return status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["trec6", "sst2"], choices=list(GRID))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--family", nargs="+", default=["without", "with", "regularizers"], choices=list(FAMILIES))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="instead of whole families")
    parser.add_argument("--max-unlabeled", type=int, default=5000)
    parser.add_argument("--no-refit", action="store_true", help="leave the last stage out")
    parser.add_argument("--labels-only", action="store_true", help="leave self-training and the last stage out")
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the data sets")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the kept cells")
    parser.add_argument("--show", action="store_true", help="run nothing")
    parser.add_argument("--wide", action="store_true", help="the pieces of variants.py, on the wide grid")
    parser.add_argument("--max-hours", type=float, default=math.inf, help="with --wide: begin no cell that ends later")
    options = parser.parse_args()
    if options.wide:
        raise SystemExit(run_wide(options))
    kept = json.loads(options.results.read_text(encoding="utf-8")) if options.results.exists() else {}
    variants = options.variants or [name for family in options.family for name in FAMILIES[family]]
    places = [(dataset, seed) for dataset in options.datasets for seed in options.seeds]
    for dataset, seed in [] if options.show else places:
        if not (options.data / dataset).is_dir():
            raise SystemExit(f"Expected the data set in {options.data / dataset}, which is not there.")
        with tempfile.TemporaryDirectory() as shared:
            for variant in variants:
                command = _command(variant, dataset, seed, options)
                cells, name = kept.setdefault(variant, {}), f"{dataset}/{seed}"
                if cells.get(name, {}).get("command") == command:
                    continue
                cells[name] = run_variant(
                    VARIANTS[variant],
                    Path(shared),
                    options.data / dataset,
                    GRID[dataset],
                    seed,
                    max_unlabeled=options.max_unlabeled,
                    refit=False if options.no_refit or options.labels_only else None,
                    rounds=0 if options.labels_only else None,
                )
                cells[name]["command"] = command
                write_json(options.results, kept)
    show(kept)


if __name__ == "__main__":
    main()
