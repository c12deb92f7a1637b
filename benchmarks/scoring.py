"""What scoring a pool costs: against `pipeline()`, against a loop by hand, trunk reuse against full passes, memory.

    python benchmarks/scoring.py                 # writes benchmarks/results/scoring.json and prints the tables
    python benchmarks/scoring.py --memory-only
    python benchmarks/scoring.py --rows 100 --memory-rows 100000 --repeats 1 --no-save

Times start from texts and end with probabilities, tokenizing included; all ways run in one process, in turns, and only
ratios are meant to be compared. The model is all-MiniLM-L6-v2, fine-tuned for a few dozen steps on 16 labels a class
of trec6, so that its uncertainty means something. Memory is that of a process of its own with a tiny model, over a
memory-mapped Arrow file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from engine import make_tokenizer
from grid import SHARED, backbone
from scipy.stats import spearmanr
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    pipeline,
)
from transformers.utils import logging

from hfssl.data.tokenization import tokenize_dataset
from hfssl.inference.predictions import MCDropoutResult, combine
from hfssl.inference.scoring import mc_dropout, predict_logits
from hfssl.methods.supervised import SupervisedTrainer
from hfssl.models.backbones import load_tokenizer
from hfssl.models.loading import load_classifier
from hfssl.runtime.files import write_json
from hfssl.runtime.precision import has_bf16

RESULTS = Path(__file__).parent / "results" / "scoring.json"
TEXTS = {"trec6": 1.0, "ag_news": 0.25}  # data set -> share of --rows; news are four times as long as questions
MAX_LENGTH = 128
LABELS_PER_CLASS = 16
HAND_BATCHES = (8, 16, 32, 64, 128)
PASSES = 10
SMALL_POOL = 10_000
GOALS = {"pipeline": 2.5, "hand": 0.95, "trunk": 0.35, "spearman": 0.9, "megabytes": 200.0}


# --- plain inference -------------------------------------------------------------------------------------------------


def by_pipeline(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> np.ndarray:
    """`[N]` labels by `pipeline()` at its defaults: one row at a time."""
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
    return np.array([model.config.label2id[answer["label"]] for answer in classify(texts)])


def by_hand(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], batch: int) -> np.ndarray:
    """`[N]` labels by the loop that one writes: all rows sorted by length, so many at a time."""
    ids = tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    labels = np.zeros(len(ids), dtype=np.int64)
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            padded = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
            labels[rows] = model(**padded).logits.softmax(dim=-1).argmax(dim=-1).numpy()
    return labels


def by_hfssl(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], bf16: bool = False
) -> np.ndarray:
    """`[N]` labels by `predict_logits`; in bf16 as `fit` has it where the hardware can."""
    rows = tokenize_dataset(Dataset.from_dict({"text": texts}), tokenizer, MAX_LENGTH)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        return predict_logits(model, rows, tokenizer).argmax(axis=-1)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def plain_inference(model: PreTrainedModel, tokenizer: Any, texts: list[str], repeats: int) -> dict[str, Any]:
    """Median seconds of each way, in turns, and the share of rows on which all give one label.

    bf16 is compared with `pipeline()` alone, and the share of rows on which it gives the same label is apart.
    """
    ways: dict[str, Callable[[], np.ndarray]] = {
        "pipeline": lambda: by_pipeline(model, tokenizer, texts),
        "hfssl": lambda: by_hfssl(model, tokenizer, texts),
        **{f"hand, {n} rows": lambda n=n: by_hand(model, tokenizer, texts, n) for n in HAND_BATCHES},
    }
    if has_bf16():
        ways["hfssl, bf16"] = lambda: by_hfssl(model, tokenizer, texts, bf16=True)
    for way in ways.values():  # warm-up
        way()
    rounds = [{name: timed(way) for name, way in ways.items()} for _ in range(repeats)]
    seconds = {name: statistics.median(turn[name][0] for turn in rounds) for name in ways}
    best = min((name for name in ways if name.startswith("hand")), key=seconds.__getitem__)
    labels = {name: answer for name, (_, answer) in rounds[0].items()}
    bf16 = {}
    if "hfssl, bf16" in ways:
        bf16["pipeline_bf16"] = statistics.median(turn["pipeline"][0] / turn["hfssl, bf16"][0] for turn in rounds)
        bf16["agreement_bf16"] = float((labels.pop("hfssl, bf16") == labels["pipeline"]).mean())
    exact = np.stack(list(labels.values()))
    return {
        "rows": len(texts),
        "seconds": seconds,
        "rounds": [{name: turn[name][0] for name in ways} for turn in rounds],
        "best_by_hand": best,
        "pipeline": statistics.median(turn["pipeline"][0] / turn["hfssl"][0] for turn in rounds),
        "hand": statistics.median(turn[best][0] / turn["hfssl"][0] for turn in rounds),
        "agreement": float((exact == exact[0]).all(axis=0).mean()),
        **bf16,
    }


# --- MC dropout ------------------------------------------------------------------------------------------------------


def fine_tuned(tokenizer: PreTrainedTokenizerBase, rows: Dataset, steps: int, folder: str) -> PreTrainedModel:
    """The backbone trained on 16 rows of each class."""
    labels = np.array(rows["label"])
    chosen = np.concatenate([np.flatnonzero(labels == label)[:LABELS_PER_CLASS] for label in np.unique(labels)])
    model = load_classifier(backbone(), [str(label) for label in np.unique(labels)], seed=0)
    config = SupervisedTrainer.config_class(
        output_dir=folder,
        max_steps=steps,
        max_length=MAX_LENGTH,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = SupervisedTrainer(model, config, train_dataset=rows.select(chosen), processing_class=tokenizer)
    trainer.train()
    return trainer.model.eval()


def uncertainty(model: PreTrainedModel, tokenizer: Any, rows: Dataset, repeats: int) -> dict[str, Any]:
    """Seconds of trunk reuse over those of full passes, and how alike the rows are ranked by BALD.

    Every run has masks of its own. Two runs of full passes do not rank the rows alike either: their correlation is
    given as well, and that with all runs of full passes taken together, whose BALD has less noise.
    """
    ways: dict[str, Callable[[int], MCDropoutResult]] = {
        "full": lambda seed: mc_dropout(model, rows, tokenizer, passes=PASSES, seed=seed),
        **{
            f"top {n}": lambda seed, n=n: mc_dropout(
                model, rows, tokenizer, passes=PASSES, seed=1000 * n + seed, top_layers=n
            )
            for n in (1, 2)
        },
    }
    predict_logits(model, rows, tokenizer)  # warm-up
    seconds: dict[str, list[float]] = {name: [] for name in ("plain", *ways)}
    results: dict[str, list[MCDropoutResult]] = {name: [] for name in ways}
    for repeat in range(repeats):
        seconds["plain"].append(timed(lambda: predict_logits(model, rows, tokenizer))[0])
        for name, way in ways.items():
            spent, result = timed(lambda way=way, seed=repeat: way(seed))
            seconds[name].append(spent)
            results[name].append(result)
    together = combine(results["full"])
    report: dict[str, Any] = {"rows": len(rows), "passes": PASSES, "seconds": seconds, "ways": {}}
    for name in ways:
        others = (
            combinations(results["full"], 2) if name == "full" else zip(results[name], results["full"], strict=True)
        )
        alike = [spearman(first, second) for first, second in others]
        report["ways"][name] = {
            "of_full": statistics.median(a / b for a, b in zip(seconds[name], seconds["full"], strict=True)),
            "of_ten_plain": statistics.median(
                a / (PASSES * b) for a, b in zip(seconds[name], seconds["plain"], strict=True)
            ),
            "spearman": statistics.mean(alike) if alike else None,
            "spearman_with_all_full_runs": statistics.mean(spearman(result, together) for result in results[name])
            if name != "full"
            else None,
        }
    return report


def spearman(first: MCDropoutResult, second: MCDropoutResult) -> float:
    return float(spearmanr(first.bald, second.bald).statistic)


# --- memory ----------------------------------------------------------------------------------------------------------


def write_pool(path: Path, rows: int) -> None:
    """An Arrow file of tokenized rows whose lengths spread like those of reviews: median 20 tokens, 95 % below 60."""
    generator = np.random.default_rng(0)
    schema = pa.schema([("input_ids", pa.list_(pa.int32()))])  # all that `tokenize_dataset` keeps of single texts
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for start in range(0, rows, 1000):
            count = min(1000, rows - start)
            lengths = np.clip(np.exp(generator.normal(3.0, 0.65, count)), 4, 120).astype(int)
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
            tokens = pa.array(generator.integers(5, 30_000, lengths.sum()), pa.int32())
            writer.write(pa.record_batch([pa.ListArray.from_arrays(offsets, tokens)], schema=schema))


def score_pool(path: str) -> None:
    """In a process of its own: scores the file with a tiny model and prints the peak of the memory used."""
    tokenizer = make_tokenizer(Path(path).parent)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=4)
    torch.manual_seed(0)
    model = BertForSequenceClassification(config).eval()
    rows = Dataset.from_file(path)
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], _anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = timed(lambda: predict_logits(model, rows, tokenizer))[0]
    mc_dropout(model, rows, tokenizer, passes=2, seed=0, top_layers=1)
    done.set()
    watcher.join()
    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"max_rss": maximum, "anonymous": peak[0], "rows_a_second": len(rows) / seconds}))


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("Expected RssAnon in /proc/self/status, which only Linux has.")


def memory(rows: int) -> dict[str, Any]:
    """Peak memory in MB at a small pool and at `rows` rows."""
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (SMALL_POOL, rows):
            path = Path(folder) / f"{count}.arrow"
            write_pool(path, count)
            command = [sys.executable, __file__, "--score-pool", str(path)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            measured[str(count)] = json.loads(output.splitlines()[-1]) | {"file": path.stat().st_size}
    small, large = measured[str(SMALL_POOL)], measured[str(rows)]
    growth = {name: (large[name] - small[name]) / 1e6 for name in ("max_rss", "anonymous", "file")}
    return {"rows": rows, "measured": measured, "growth_in_megabytes": growth}


# --- all of it -------------------------------------------------------------------------------------------------------


def run(rows: int, memory_rows: int, steps: int, repeats: int) -> dict[str, Any]:
    """All measurements."""
    results: dict[str, Any] = {"memory": memory(memory_rows)}
    tokenizer = load_tokenizer(backbone())
    tables = {name: Dataset.from_parquet(str(SHARED / name / "train.parquet")).shuffle(seed=0) for name in TEXTS}
    with tempfile.TemporaryDirectory() as folder:
        model = fine_tuned(tokenizer, tables["trec6"], steps, folder)
    # The last rows, so that few or none are those trained on.
    pools = {name: table.select(range(len(table) - math.ceil(rows * TEXTS[name]), len(table)))
             for name, table in tables.items()}  # fmt: skip
    results["plain"] = {
        name: plain_inference(model, tokenizer, list(pool["text"]), repeats) for name, pool in pools.items()
    }
    results["mc_dropout"] = uncertainty(model, tokenizer, tokenize_dataset(pools["trec6"], tokenizer, 128), repeats)
    return results


def show(results: dict[str, Any]) -> None:
    """Prints the tables, each number next to its goal."""
    print("\nplain inference: seconds of the other way over ours\n")
    print(f"{'':10}{'rows':>6}{'pipeline()':>12}{'goal':>8}{'':6}{'by hand':>10}{'goal':>8}{'':6}  by hand is")
    for name, row in results["plain"].items():
        print(f"{name:10}{row['rows']:>6}{row['pipeline']:>12.2f}{_goal(row['pipeline'], 'pipeline', least=True)}"
              f"{row['hand']:>10.2f}{_goal(row['hand'], 'hand', least=True)}  {row['best_by_hand'][6:]} at a time, "
              f"the best of {', '.join(map(str, HAND_BATCHES))}")  # fmt: skip
        if "pipeline_bf16" in row:
            print(f"{'  in bf16':16}{row['pipeline_bf16']:>12.2f}{_goal(row['pipeline_bf16'], 'pipeline', least=True)}"
                  f"{'':10}{'':14}  {100 * row['agreement_bf16']:.1f} % of the labels are those of fp32")  # fmt: skip
    mc = results["mc_dropout"]
    print(f"\nMC dropout, T = {mc['passes']}, {mc['rows']} rows: seconds, and Spearman correlation of BALD\n")
    print(f"{'':10}{'of full':>9}{'goal':>8}{'':6}{'of ten plain passes':>21}{'with full':>12}{'goal':>8}{'':6}"
          f"{'with all full runs':>21}")  # fmt: skip
    for name, row in mc["ways"].items():
        first = " " * 14 if name == "full" else _goal(row["of_full"], "trunk", least=False)
        second = " " * 14 if name == "full" else _goal(row["spearman"], "spearman", least=True)
        print(f"{name:10}{row['of_full']:>9.3f}{first}{row['of_ten_plain']:>21.3f}{_number(row['spearman']):>12}"
              f"{second}{_number(row['spearman_with_all_full_runs']):>21}")  # fmt: skip
    growth, rows = results["memory"]["growth_in_megabytes"], results["memory"]["rows"]
    print(f"\nmemory: MB more at {rows:,} rows than at {SMALL_POOL:,}\n")
    for name, title in (("max_rss", "ru_maxrss, mapped pages of the file included"), ("anonymous", "without them")):
        print(f"{title:46}{growth[name]:>9.1f}{_goal(growth[name], 'megabytes', least=False)}")
    print(f"{'the file':46}{growth['file']:>9.1f}")
    print("Mapped pages of the Arrow file are the system's cache, which it takes back when memory is short.")


def _goal(value: float | None, name: str, *, least: bool) -> str:
    if value is None:
        return " " * 14
    reached = value >= GOALS[name] if least else value <= GOALS[name]
    return f"{'>= ' if least else '<= '}{GOALS[name]:g}".rjust(8) + (" pass " if reached else " FAIL ")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000, help="rows of trec6 to score with MiniLM")
    parser.add_argument("--memory-rows", type=int, default=1_000_000, help="rows of the large pool of the memory test")
    parser.add_argument("--steps", type=int, default=60, help="steps of fine-tuning")
    parser.add_argument("--repeats", type=int, default=3, help="turns; medians are given")
    parser.add_argument("--memory-only", action="store_true", help="keep the rest of what was measured last")
    parser.add_argument("--no-save", action="store_true", help="do not write benchmarks/results/scoring.json")
    parser.add_argument("--score-pool", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.set_verbosity_error()
    if options.score_pool:
        score_pool(options.score_pool)
        return
    if options.memory_only:
        if not RESULTS.exists():
            raise SystemExit(
                f"Expected earlier measurements in {RESULTS}, which is not there: leave out --memory-only."
            )
        command = f"python benchmarks/scoring.py --memory-only --memory-rows {options.memory_rows}"
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
        results["memory"] = memory(options.memory_rows) | {"command": command}
    else:
        results = run(options.rows, options.memory_rows, options.steps, options.repeats)
        results["command"] = (
            f"python benchmarks/scoring.py --rows {options.rows} --memory-rows {options.memory_rows} "
            f"--steps {options.steps} --repeats {options.repeats}"
        )
        results |= {"goals": GOALS, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
        results["versions"] = {"python": platform.python_version()} | {
            name: version(name) for name in ("torch", "transformers", "datasets", "numpy", "pyarrow")
        }
    show(results)
    if not options.no_save:
        write_json(RESULTS, results)
        print(f"\nwritten to {RESULTS}")


if __name__ == "__main__":
    main()
