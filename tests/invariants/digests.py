"""Digests of all that trains, to prove that a change of the code's layout changes nothing that trains.

    python tests/invariants/digests.py --tiny --write before.txt        # before the change
    python tests/invariants/digests.py --tiny --compare before.txt      # after it; exit status 1 where a line differs

`--tiny` trains backbones of 20,000 parameters made on the spot, `--real` the backbone and the reviews of
`recipes/quickstart.py`; without either, both run. `--only TEXT` runs the cases that hold this text in their names,
`--list` names all cases. Set `PYTHONPATH` to the tree to be measured where another one is installed.

A line is `CASE KIND DIGEST`. The kinds are:

* `weights`: tensors of the trained model, by name, bit for bit;
* `logits`: of the trained model on rows that never change;
* `stage_weights`, `stage_logits`: of every model that a run of `fit` keeps, the logits on its held-out rows;
* `pseudo_labels`: rows, targets, weights and predictions of each round and of the refit;
* `cross_fit`: probabilities of the labeled rows and of `proxy`;
* `splits`: the fingerprints of the rows of each part, and the label names;
* `metrics`: of each stage, by its position; `outcome`: selected and final stage, temperature, measured gain.

Where a case has several lines of a kind (one model per stage), these are sorted by digest and equal ones are one line.
So neither the names of folders, stages, options and JSON keys nor the order of writing are part of a digest. Names
that the command must read or set are defined once, in the section NAMES below: a rename changes that section only.

Digests are valid for one machine and one set of library versions; the first lines, which begin with `#`, name them and
are not compared. All runs compute on one CPU thread.
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # before torch is imported; tests that import this file keep their environment
    os.environ.update(CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import csv
import gc
import hashlib
import importlib.util
import json
import logging
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset, disable_progress_bars
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizerFast, PreTrainedModel, set_seed

import hfssl
from hfssl.models.loading import load_masked_lm  # these two lines belong to NAMES, too
from hfssl.pipeline.presets import PRESETS, Preset

# --- NAMES: all that a renaming or a move may touch ---

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.py"  # `prepare(folder)` -> table, backbone
TRAINERS = {
    "supervised": (hfssl.SupervisedTrainer, hfssl.SupervisedConfig),
    "contrastive": (hfssl.ContrastiveTrainer, hfssl.ContrastiveConfig),
    "masked_span": (hfssl.MaskedSpanTrainer, hfssl.MaskedSpanConfig),
    "self_training": (hfssl.SelfTrainingTrainer, hfssl.SelfTrainingConfig),
}
# The cases below use the words of GLOSSARY. Word there -> name of the option, or of the preset's field, today; a
# word that is not here is its own name.
OPTIONS = {
    "labels_only": "supervised",  # a field of a preset
}
COLUMNS = {"targets": "pseudo_probs", "weights": "weight"}  # of the rows that a student is taught from
# Files of a run of `fit`, and what is read from them. Names of files are looked for everywhere below the run's folder.
RESULTS_FILE, MANIFEST_FILE = "results.json", "splits/manifest.json"
PSEUDO_LABELS_FILE, LOGITS_FILE, CROSS_FIT_FILE = "pseudo_labels.npz", "logits.npz", "cross_fit.npz"
PSEUDO_LABELS = ("rows", "target_probs", "weights", "predicted")  # arrays of that file
MANIFEST = {"parts": "roles", "fingerprints": "fingerprints", "label_names": "label_names"}
RESULTS = {
    "stages": "stages",
    "name": "name",
    "metrics": "metrics",
    "selected_stage": "selected_stage",
    "final_stage": "final_stage",
    "temperature": "temperature",
    "verdict": "verdict",
    "gain": "gain",
}
METRICS = ("accuracy", "macro_f1", "nll", "ece")
MEASURED = ("validation", "test")

# --- Cases: what is trained ---

LABELS = ("bad", "good", "plot")
FAST = {"max_steps": 6, "save_steps": 100, "logging_steps": 3, "per_device_train_batch_size": 4}
# Every signal and every stage of `fit`, in few steps.
EVERYTHING = {
    "labels_only": FAST,
    "contrastive": {**FAST, "wise_ft_alpha": 0.75},
    "teacher_overrides": ({"contrastive_loss": "cosine"},),
    "pretext": {**FAST, "eval_steps": 3},
    "self_training": {
        **FAST,
        "rounds": 2,
        "mc_passes": 3,
        "num_teachers": 2,
        "model_soup": True,
        "student_init": "teacher",
        "retrain_head": True,
        "label_name_prior": True,
        "backbone_probe": True,
        "teacher_probe": True,
    },
    "max_pool_rows": 40,
    "fold_teachers": {"max_steps": 4},
    "fold_students": {"max_steps": 4},
    "fold_pool_rows": 16,
}
# Rounds that differ from those of EVERYTHING and of the real presets; each in a run without pretext.
ROUNDS = {
    "easy": {"mc_passes": 3, "label_spreading": "agreement", "final_selection_fraction": 0.9, "stop_agreement": 1.0},
    "hard": {"mc_passes": 3, "selection_strategy": "hard", "acquisition": "entropy", "weighting": "one_minus_bald"},
    "uniform": {"mc_passes": 2, "selection_strategy": "uniform", "weighting": "confidence", "mc_top_layers": 1},
    "top_k": {
        "mc_passes": 2,
        "selection_strategy": "top_k",
        "label_spreading": "certainty",
        "weighting": "one_minus_entropy",
        "distribution_alignment": "labeled",
    },
    "threshold": {
        "mc_passes": 2,
        "selection_strategy": "threshold",
        "confidence_threshold": 0.33577,  # of hardly trained teachers: some rows, not all
        "label_spreading": "labels",
        "soft_targets": True,
        "sharpen_temperature": 0.5,
        "acquisition": "margin",
    },
    "all": {
        "mc_passes": 0,
        "selection_strategy": "all",
        "weighting": "uniform",
        "soft_targets": True,
        "distribution_alignment": "estimated",
        "knn_smoothing": 0.3,
        "ood_filter": True,
        "weight_average_decay": 0.9,
        "num_teachers": 2,
    },
}
# Case -> method and options of its trainer.
TRAINED = {
    "supervised": ("supervised", {}),
    "supervised-accumulation": ("supervised", {"gradient_accumulation_steps": 2}),
    "supervised-r-drop": ("supervised", {"r_drop_alpha": 0.5, "l2_sp_alpha": 0.01, "layerwise_lr_decay": 0.9}),
    "supervised-mixup": ("supervised", {"mixup_alpha": 0.4, "head_init": "class_means", "weight_average_decay": 0.9}),
    "supervised-logistic": ("supervised", {"head_init": "logistic", "wise_ft_alpha": 0.5, "freeze_embeddings": True}),
    "contrastive": ("contrastive", {}),
    "contrastive-cosine": ("contrastive", {"contrastive_loss": "cosine", "wise_ft_alpha": 0.5}),
    "masked_span": ("masked_span", {}),
    "masked_span-token": ("masked_span", {"masking": "token", "replacement": "token", "early_stopping_patience": 0}),
    "self_training": ("self_training", {}),
    "self_training-retrain": ("self_training", {"retrain_head": True, "freeze_embeddings": True, "lambda_u": 0.5}),
    "self_training-labels": ("self_training", {"lambda_u": 0.0}),
}
MAIN_CASES = ("supervised", "contrastive", "masked_span", "self_training")
ADAPTERS = {"full": "none", "lora": "lora"}


class Place:
    """A backbone, and texts to learn from.

    Args:
        backbone: Folder of an encoder and its tokenizer.
        table: CSV file with the columns `text` and `label`, or those that `columns` names.
        rows: Texts and labels in the table.
        options: Options of `fit` that every run on them has.
        steps: Optimizer steps of each training run.
        rows_used: How many labeled rows, unlabeled rows and rows to measure on a trainer gets.
    """

    def __init__(
        self,
        backbone: Path,
        table: Path,
        rows: list[tuple[str, str]],
        options: Mapping[str, Any],
        *,
        steps: int,
        rows_used: tuple[int, int, int],
    ):
        self.backbone, self.table, self.options, self.steps = str(backbone), str(table), dict(options), steps
        labeled, unlabeled, held_out = rows_used
        self.labeled = _by_turns(rows)[:labeled]
        self.unlabeled = [text for text, _ in rows[-unlabeled:]]
        self.held_out = [text for text, _ in rows[:held_out]]
        self.label_names = sorted({label for _, label in rows})


def tiny_place(folder: Path) -> Place:
    """A two-layer BERT with random weights, and 180 texts whose label shows in their words."""
    cues = {"good": "great fun love joy", "bad": "awful dull hate fear", "plot": "story actor city river"}
    fillers = "the a of to and in is was it film movie who what when".split()

    def text(i: int, label: str) -> str:
        words = [fillers[(i * 3 + j * 5 + i // 7) % len(fillers)] for j in range(4 + i % 4)]
        words.insert(i % 4, cues[label].split()[i % 4])
        words.insert(2, cues[label].split()[(i // 3) % 4])
        return " ".join(words)

    rows = [(text(i, LABELS[i % 3]), LABELS[i % 3]) for i in range(180)]
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *fillers, *" ".join(cues.values()).split()]
    pieces = list(dict.fromkeys([*pieces, *LABELS, *letters, *("##" + letter for letter in letters)]))
    backbone = folder / "tiny-backbone"
    backbone.mkdir()
    (backbone / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab=str(backbone / "vocab.txt"), model_max_length=64).save_pretrained(backbone)
    set_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(pieces), max_position_embeddings=64, **sizes)).save_pretrained(backbone)
    table = _write_table(folder / "tiny.csv", ("text", "label"), rows)
    options = {"labels_per_class": 10, "max_length": 32}
    return Place(backbone, table, rows, options, steps=6, rows_used=(11, 30, 12))


def real_place(folder: Path) -> Place:
    """all-MiniLM-L6-v2 and a twentieth of the reviews, with the columns that `make quickstart` uses."""
    reviews, backbone = _module(QUICKSTART).prepare(folder / "quickstart")
    columns = ("text", "category", "movie_name")
    with open(reviews, encoding="utf-8", newline="") as file:
        rows = [tuple(row[name] for name in columns) for row in csv.DictReader(file)][::20]
    table = _write_table(folder / "reviews.csv", columns, rows)
    options = {"label_column": "category", "group_column": "movie_name", "labels_per_class": 10, "max_unlabeled": 100}
    options |= {"max_test": 40, "max_length": 24}
    labeled = [(text, label) for text, label, _ in rows]
    return Place(backbone, table, labeled, options, steps=2, rows_used=(8, 16, 8))


def tiny_cases(place: Place) -> Iterator[tuple[str, Callable[[Path], list[str]]]]:
    """Name and work of each case on the tiny backbone."""
    for name, (method, settings) in TRAINED.items():
        for adapter in ADAPTERS if name in MAIN_CASES else ("full",):
            yield f"tiny/{name}/{adapter}", _trainer_case(place, method, settings, adapter)
    auto = {"precision": "auto"}
    for adapter in ADAPTERS:
        for preset in ("quick", "standard"):
            yield f"tiny/fit-{preset}/{adapter}", _fit_case(place, _short(PRESETS[preset], place.steps), adapter)
        everything = {"validation_fraction": 0.2, "refit": True, "cross_fit": 2}
        yield f"tiny/fit-everything/{adapter}", _fit_case(place, make_preset(EVERYTHING), adapter, **everything)
    quick = _short(PRESETS["quick"], place.steps)
    yield "tiny/fit-quick-auto-precision/full", _fit_case(place, quick, "full", **auto)
    held_out = {"validation_fraction": 0.2, "cross_fit": 0}
    yield "tiny/fit-quick-held-out/full", _fit_case(place, quick, "full", **held_out)
    yield "tiny/fit-quick-held-out/lora", _fit_case(place, quick, "lora", **held_out)
    yield "tiny/fit-quick-no-rounds/full", _fit_case(place, quick, "full", rounds=0)
    yield "tiny/fit-quick-mean-pooling/full", _fit_case(place, quick, "full", pooling="mean")
    prior = {"class_prior": "good=0.5, bad=0.3, plot=0.2", "max_steps": 3, "learning_rate": 2e-4}
    yield "tiny/fit-quick-class-prior/full", _fit_case(place, quick, "full", **prior)
    for name, settings in ROUNDS.items():
        preset = {"labels_only": FAST, "self_training": {**FAST, "rounds": 2, **settings}}
        more = {"validation_fraction": 0.2, "refit": name in ("easy", "all")}
        yield f"tiny/rounds-{name}/full", _fit_case(place, make_preset(preset), "full", **more)


def real_cases(place: Place) -> Iterator[tuple[str, Callable[[Path], list[str]]]]:
    """Name and work of each case on the real backbone."""
    yield "real/splits", lambda folder: _real_splits(folder)
    for method in MAIN_CASES:
        for adapter in ADAPTERS:
            yield f"real/{method}/{adapter}", _trainer_case(place, method, {}, adapter)
    quick, standard = (_short(PRESETS[name], place.steps) for name in ("quick", "standard"))
    for adapter in ADAPTERS:
        yield f"real/fit-quick/{adapter}", _fit_case(place, quick, adapter)
        yield f"real/fit-standard/{adapter}", _fit_case(place, standard, adapter)
    yield "real/fit-quick-auto-precision/full", _fit_case(place, quick, "full", precision="auto")
    # Not by the option `pretext`: that asks for 300 steps.
    pretext = replace(quick, **_named({"pretext": {"max_steps": place.steps, "eval_steps": 1}}))
    yield "real/fit-quick-pretext/full", _fit_case(place, pretext, "full")


# --- Running a case ---


def _trainer_case(place: Place, method: str, settings: Mapping[str, Any], adapter: str, seed: int = 7) -> Callable:
    return lambda folder: train_method(place, folder, method, settings, adapter, seed=seed)


def _fit_case(place: Place, preset: Preset, adapter: str, **options: Any) -> Callable:
    return lambda folder: run_fit(place, folder, preset, adapter, **options)


def train_method(
    place: Place, folder: Path, method: str, settings: Mapping[str, Any], adapter: str, *, seed: int
) -> list[str]:
    """Trains one method through its trainer; returns the lines of the model."""
    trainer_class, config_class = TRAINERS[method]
    given = FAST | {"max_steps": place.steps, "max_length": place.options["max_length"], "seed": seed} | settings
    given |= {"eval_steps": max(1, place.steps // 2)} if method == "masked_span" else {}
    args = config_class(output_dir=str(folder), use_cpu=True, disable_tqdm=True, report_to="none", **_named(given))
    masked = method == "masked_span"
    if masked:
        model = load_masked_lm(place.backbone, seed=1)
    else:
        model = hfssl.load_classifier(place.backbone, place.label_names, seed=1)
    task = "masked_lm" if masked else "sequence_classification"
    labeled = {
        "text": [text for text, _ in place.labeled],
        "label": [place.label_names.index(label) for _, label in place.labeled],
    }
    unlabeled = {"text": place.unlabeled}
    if method == "self_training":
        size = len(place.unlabeled)
        scores = torch.randn(size, len(place.label_names), generator=torch.Generator().manual_seed(5))
        unlabeled[COLUMNS["targets"]] = torch.softmax(scores, dim=-1).tolist()
        unlabeled[COLUMNS["weights"]] = [0.5 + (i % 3) / 2 for i in range(size)]
    trainer = trainer_class(
        model,
        args,
        train_dataset=None if masked else Dataset.from_dict(labeled),
        unlabeled_dataset=Dataset.from_dict(unlabeled) if method in ("masked_span", "self_training") else None,
        eval_dataset=Dataset.from_dict({"text": place.held_out}) if masked else None,
        processing_class=hfssl.load_tokenizer(place.backbone),
        peft_config=hfssl.build_lora_config(model, r=2, alpha=4, task=task) if adapter == "lora" else None,
    )
    trainer.train()
    return model_lines(trainer.model, place)


def run_fit(place: Place, folder: Path, preset: Preset, adapter: str, **options: Any) -> list[str]:
    """Runs `fit` with this preset; returns the lines of all that it leaves."""
    before, PRESETS["quick"] = PRESETS["quick"], preset
    given = {
        "precision": "fp32",
        "seed": 3,
        "keep_stages": True,
        "adapter": ADAPTERS[adapter],
        **place.options,
        **options,
    }
    try:
        result = hfssl.fit(
            place.table,
            output_dir=str(folder / "run"),
            backbone=place.backbone,
            preset="quick",
            quiet=True,
            **_named(given),
        )
    finally:
        PRESETS["quick"] = before
    return model_lines(result.model(), place) + run_lines(result.output_dir)


def model_lines(model: PreTrainedModel, place: Place) -> list[str]:
    """Weights of a model, and its logits on the held-out rows."""
    tokenizer = AutoTokenizer.from_pretrained(place.backbone)
    batch = tokenizer(place.held_out, padding=True, truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    return [f"weights {digest_of_tensors(model.state_dict())}", f"logits {digest_of(logits.float().numpy())}"]


def run_lines(folder: Path) -> list[str]:
    """Digests of what a finished run of `fit` keeps in its folder."""
    lines = [f"stage_weights {digest_of_tensors(load_file(path))}" for path in folder.rglob("*.safetensors")]
    for kind, name in (("stage_logits", LOGITS_FILE), ("cross_fit", CROSS_FIT_FILE)):
        lines += [f"{kind} {digest_of(a)}" for path in folder.rglob(name) for a in _arrays(path).values()]
    for path in folder.rglob(PSEUDO_LABELS_FILE):
        arrays = _arrays(path)
        lines.append(f"pseudo_labels {digest_of(*(arrays[name] for name in PSEUDO_LABELS))}")
    lines.append(f"splits {digest_of_splits(json.loads((folder / MANIFEST_FILE).read_text(encoding='utf-8')))}")
    results = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
    stages = results[RESULTS["stages"]]
    metrics = [stage[RESULTS["metrics"]] for stage in stages]
    numbers = [[found[part] and [found[part][name] for name in METRICS] for part in MEASURED] for found in metrics]
    names = [stage[RESULTS["name"]] for stage in stages]
    outcome = [names.index(results[RESULTS[key]]) for key in ("selected_stage", "final_stage")]
    outcome += [results[RESULTS["temperature"]], results[RESULTS["verdict"]][RESULTS["gain"]]]
    lines += [f"metrics {digest_of_json(numbers)}", f"outcome {digest_of_json(outcome)}"]
    return sorted(set(lines))


def _real_splits(folder: Path) -> list[str]:
    """The splits of the quickstart itself, of all reviews."""
    reviews, _ = _module(QUICKSTART).prepare(folder)
    table = hfssl.load_table(str(reviews), text_column="text", label_column="category", group_column="movie_name")
    splits = hfssl.few_label_splits(table, labels_per_class=16, max_unlabeled=3000, seed=0)
    return [f"splits {digest_of_splits(splits.manifest)}"]


# --- Digests ---


def digest_of(*arrays: np.ndarray) -> str:
    """Of dtype, shape and bytes of each array."""
    result = hashlib.sha256()
    for array in arrays:
        result.update(f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
    return result.hexdigest()[:16]


def digest_of_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Of all tensors by name, but for the head that peft keeps of the model before its adapter."""
    result = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if "original_module" not in name:
            flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # bytes of bf16, too
            result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode() + flat.numpy().tobytes())
    return result.hexdigest()[:16]


def digest_of_splits(manifest: Mapping[str, Any]) -> str:
    """Of the label names and of the fingerprints of each part, whatever the parts are called."""
    parts = [part[MANIFEST["fingerprints"]] for part in manifest[MANIFEST["parts"]].values()]
    return digest_of_json([manifest[MANIFEST["label_names"]], sorted(parts)])


def digest_of_json(value: Any) -> str:
    """Of plain values; floats by their shortest exact decimals."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


# --- Helpers ---


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings under today's names (see `OPTIONS`)."""
    return {OPTIONS.get(name, name): value for name, value in settings.items()}


def make_preset(stages: Mapping[str, Any]) -> Preset:
    """A preset from settings in the words of GLOSSARY."""
    return Preset(**_named({name: _named(v) if isinstance(v, dict) else v for name, v in stages.items()}))


def _short(preset: Preset, steps: int) -> Preset:
    """The preset with at most so many steps of each kind, and nothing else changed."""
    values = {entry.name: getattr(preset, entry.name) for entry in fields(preset)}
    stages = {name: value for name, value in values.items() if isinstance(value, dict) and "max_steps" in value}
    return replace(preset, **{n: {**v, "max_steps": min(steps, v["max_steps"])} for n, v in stages.items()})


def _by_turns(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The rows, one of each label in turn."""
    of_label: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        of_label.setdefault(row[1], []).append(row)
    return [row for turn in zip(*(of_label[label] for label in sorted(of_label)), strict=False) for row in turn]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- Command ---


def lines_of(case: str, work: Callable[[Path], list[str]]) -> list[str]:
    """Runs one case in a folder of its own, from the same state of all random generators."""
    set_seed(0)
    gc.freeze()  # accelerate collects after every training; without this it looks at all modules each time
    try:
        with tempfile.TemporaryDirectory() as folder:
            return [f"{case} {line}" for line in work(Path(folder))]
    finally:
        gc.unfreeze()


def differences(before: Iterable[str], after: Iterable[str], cases: Iterable[str]) -> list[str]:
    """Lines that only one of the two has (`-` before, `+` after), of these cases."""
    old, new = (Counter(line for line in lines if line and not line.startswith("#")) for lines in (before, after))
    ran = set(cases)
    lost = [f"- {line}" for line in (old - new).elements() if line.split()[0] in ran]
    return sorted(lost + [f"+ {line}" for line in (new - old).elements()], key=lambda line: line[2:])


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="The cases on tiny backbones.")
    parser.add_argument("--real", action="store_true", help="The cases on the real backbone.")
    parser.add_argument("--only", default="", metavar="TEXT", help="Only cases with this text in their names.")
    parser.add_argument("--list", action="store_true", help="Name the cases, and run none.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="Write the lines to this file, too.")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="Exit with 1 where lines differ from FILE.")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    both = options.tiny == options.real
    lines = [f"# {platform.machine()}, python {platform.python_version()}, torch {torch.__version__}"]
    lines.append(f"# transformers {transformers.__version__}, {' '.join(sorted(_cpu_features()))}")
    sys.stdout.write("\n".join(lines) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        cases: list[tuple[str, Callable[[Path], list[str]]]] = []
        cases += tiny_cases(tiny_place(Path(folder))) if both or options.tiny else []
        cases += real_cases(real_place(Path(folder))) if both or options.real else []
        cases = [(name, work) for name, work in cases if options.only in name]
        for name, work in cases:
            started = time.process_time()
            found = [name] if options.list else lines_of(name, work)
            sys.stdout.write("\n".join(found) + "\n")
            sys.stdout.flush()
            if not options.list:
                sys.stderr.write(f"# {name}: {time.process_time() - started:.1f} CPU seconds\n")
            lines += found
            if options.write:  # after each case, so that a run that is stopped leaves what it has
                options.write.parent.mkdir(parents=True, exist_ok=True)
                options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if options.compare and not options.list:
        return _compare(options.compare, lines, [name for name, _ in cases])
    return 0


def _compare(file: Path, lines: Sequence[str], cases: Sequence[str]) -> int:
    found = differences(file.read_text(encoding="utf-8").splitlines(), lines, cases)
    count = sum(not line.startswith("#") for line in lines)
    verdict = f"{len(found)} lines differ from" if found else f"all {count} lines of {len(cases)} cases equal those in"
    sys.stdout.write("\n".join([*found, f"# {verdict} {file}"]) + "\n")
    return 1 if found or not count else 0


def _cpu_features() -> list[str]:
    return [name for name, value in torch.cpu.get_capabilities().items() if value is True]


def _say_less() -> None:
    """Silences what the libraries say; for a process of its own only."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    disable_progress_bars()


if __name__ == "__main__":
    _say_less()
    sys.exit(main(sys.argv[1:]))
