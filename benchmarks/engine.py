"""What the engine costs: seconds a step over stock `Trainer`, and the share of the machine's matrix-multiply rate.

    python benchmarks/engine.py                  # writes benchmarks/results/engine.json and prints the tables
    python benchmarks/engine.py --steps 12 --repeats 1 --no-save
    python benchmarks/engine.py --objective fixmatch       # a consistency method against a hand-written loop

Both sides run the same rows in the same batches, alternating in one process; only ratios are meant to be compared. The
model has MiniLM's shape (6 layers, 384 wide, 22.7M parameters) and random weights: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from consistency_engine import measure
from consistency_engine import show as show_consistency
from datasets import Dataset
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizerFast,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging

from hfssl.data.sampler import LABELED, UNLABELED, RowStream, TwoStreamBatchSampler
from hfssl.data.two_stream import TwoStreamDataset
from hfssl.methods.pretext.masked_span import MaskedSpanTrainer
from hfssl.methods.supervised import SupervisedTrainer
from hfssl.runtime.files import write_json

RESULTS = Path(__file__).parent / "results" / "engine.json"
WARM_UP_STEPS = 3
BATCH = {"supervised": 16, "masked_span": 32}
GOALS = {"ratio": 1.05, "share": 0.6}
KINDS = {
    "matrix multiplication": ("mm", "linear", "matmul", "mkldnn"),
    "attention": ("attention",),
    "optimizer": ("adam", "foreach_norm", "_foreach", "linalg_vector_norm", "clip"),
    "dropout": ("dropout", "bernoulli"),
    "loss and softmax": ("softmax", "nll_loss", "cross_entropy"),
    "norms and activations": ("norm", "gelu", "tanh"),
    "embeddings": ("embedding", "index"),
    "adding, copying, filling": ("add", "copy", "mul", "sum", "fill", "zero", "cat", "div", "where", "empty", "to"),
}


class StepTimes(TrainerCallback):
    """Seconds from the end of one step to the end of the next: all that a step costs, loader included."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())

    def median(self) -> float:
        """Median after warm-up."""
        return statistics.median(np.diff(self.ends[WARM_UP_STEPS:]).tolist())


def make_tokenizer(folder: Path) -> BertTokenizerFast:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(30_517))]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    return BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=128)


def make_texts(rows: int) -> Dataset:
    """Texts whose lengths spread like those of reviews: median 20 words, 95 % below 60."""
    generator = np.random.default_rng(0)
    lengths = np.clip(np.exp(generator.normal(3.0, 0.65, rows)), 4, 120).astype(int)
    texts = [" ".join(f"w{i}" for i in generator.integers(0, 30_000, length)) for length in lengths]
    return Dataset.from_dict({"text": texts, "label": generator.integers(0, 4, rows).tolist()})


def make_config() -> BertConfig:
    return BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, num_labels=4
    )


def _classifier() -> torch.nn.Module:
    torch.manual_seed(0)
    return BertForSequenceClassification(make_config())


class Side:
    """One way of training one method; `train(steps)` returns the median seconds a step."""

    def __init__(self, method: str, rows: Dataset, tokenizer: BertTokenizerFast, steps: int, folder: Path):
        self.method, self.tokenizer, self.steps, self.folder = method, tokenizer, steps, folder
        self.rows = rows
        self.common = {
            "output_dir": str(folder),
            "max_steps": steps,
            "per_device_train_batch_size": BATCH[method],
            "save_strategy": "no",
            "logging_steps": 10,
            "report_to": "none",
            "disable_tqdm": True,
            "seed": 0,
            "use_cpu": True,
        }

    def model(self) -> torch.nn.Module:
        torch.manual_seed(0)
        return (BertForSequenceClassification if self.method == "supervised" else BertForMaskedLM)(make_config())

    def ours(self) -> SupervisedTrainer | MaskedSpanTrainer:
        kind = SupervisedTrainer if self.method == "supervised" else MaskedSpanTrainer
        stream = "train_dataset" if self.method == "supervised" else "unlabeled_dataset"
        config = kind.config_class(**self.common, max_length=128)
        return kind(self.model(), config, processing_class=self.tokenizer, **{stream: self.rows})

    def stock(self) -> Trainer:
        """Stock `Trainer` on the very rows, batch by batch, that `ours` draws."""
        reference = self.ours()
        supervised = self.method == "supervised"
        data = reference.train_dataset if supervised else reference.unlabeled_dataset
        lengths = None if supervised else [len(ids) for ids in data["input_ids"]]
        stream = RowStream(len(data), 0, LABELED if supervised else UNLABELED, lengths)
        batches = stream.batches(0, BATCH[self.method])
        keys = [key for _ in range(self.steps) for key in next(batches)]
        if supervised:
            columns = [name for name in data.column_names if name in (*self.tokenizer.model_input_names, "labels")]
            data = data.select_columns(columns).select([key.row for key in keys])
            collator: Any = DataCollatorWithPadding(self.tokenizer)
        else:
            data = _Drawn(data, keys)
            view = reference.objective.build_views(self.tokenizer, reference.args)["masked"]

            def collator(rows: list[dict]) -> dict[str, torch.Tensor]:
                batch = view(rows)
                return {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}

        args = TrainingArguments(
            **self.common,
            learning_rate=1e-4,
            weight_decay=0.01,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        return Trainer(self.model(), args, train_dataset=data, data_collator=collator, processing_class=self.tokenizer)

    def seconds(self, name: str) -> tuple[float, float]:
        """Median seconds a step and the loss of the last log, which shows that both sides did the same."""
        trainer = self.ours() if name == "ours" else self.stock()
        times = StepTimes()
        trainer.add_callback(times)
        trainer.train()
        return times.median(), [log["loss"] for log in trainer.state.log_history if "loss" in log][-1]


class _Drawn(torch.utils.data.Dataset):
    """The rows of a pool in the order drawn, with the `row` and `draw` that masking needs."""

    def __init__(self, pool: Dataset, keys: list):
        self.rows, self.keys = TwoStreamDataset(None, pool), keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, position: int) -> dict:
        return self.rows[self.keys[position]]


def matrix_rate(seconds: float = 1.5) -> float:
    """The machine's own rate, FLOP/s: one large float32 product in the shape of MiniLM's widest layer."""
    rows, weight = torch.randn(2048, 384), torch.randn(1536, 384)
    torch.nn.functional.linear(rows, weight)
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.nn.functional.linear(rows, weight)
        best = max(best, 2 * 2048 * 384 * 1536 / (time.perf_counter() - start))
    return best


def share_of_rate(side: Side) -> dict[str, Any]:
    """FLOPs of matrix products in a training step / seconds / the machine's rate, and where the seconds go."""
    trainer = side.ours()
    times = StepTimes()
    flops: list[int] = []
    step = trainer.training_step

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        counter = FlopCounterMode(display=False)
        with counter:
            loss = step(*args, **kwargs)
        flops.append(counter.get_total_flops())
        return loss

    trainer.training_step = counted
    trainer.train()

    before = matrix_rate()
    trainer = side.ours()
    trainer.add_callback(times)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        trainer.train()
    profiled = times.ends[-1] - times.ends[0]
    trainer, times = side.ours(), StepTimes()
    trainer.add_callback(times)
    trainer.train()
    rate = max(before, matrix_rate())
    window = slice(WARM_UP_STEPS + 1, None)
    seconds = float(np.sum(np.diff(times.ends)[WARM_UP_STEPS:]))
    spent: dict[str, float] = defaultdict(float)
    for event in profile.key_averages():
        spent[_kind(event.key)] += event.self_cpu_time_total / 1e6
    total = sum(spent.values())
    return {
        "share": sum(flops[window]) / seconds / rate,
        "gflop_a_step": float(np.mean(flops)) / 1e9,
        "machine_gflop_a_second": rate / 1e9,
        "where_the_time_goes": {kind: value / total for kind, value in sorted(spent.items(), key=lambda x: -x[1])},
        "operators_over_wall_clock": total / profiled,
    }


def _kind(name: str) -> str:
    plain = name.lower()
    if not plain.startswith("aten"):
        plain = plain.split("::")[-1]
    for kind in ("optimizer", "dropout", "attention", *KINDS):
        if any(word in plain for word in KINDS[kind]):
            return kind
    return "python, loader, autograd"


def padding_share(lengths: list[int], bucketed: bool, batch: int) -> float:
    """Share of the token slots that hold padding."""
    sampler = TwoStreamBatchSampler(
        None,
        RowStream(len(lengths), 0, UNLABELED, lengths if bucketed else None),
        labeled_per_batch=0,
        unlabeled_per_batch=batch,
    )
    slots = tokens = 0
    for rows in sampler:
        own = [lengths[key.row] for key in rows]
        slots, tokens = slots + max(own) * len(own), tokens + sum(own)
    return 1 - tokens / slots


def run(steps: int, repeats: int) -> dict[str, Any]:
    """All measurements."""
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "steps": steps, "repeats": repeats, "methods": {}}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tokenizer(Path(folder))
        rows = make_texts(4000)
        for method in BATCH:
            side = Side(method, rows, tokenizer, steps, Path(folder))
            pairs = []
            for repeat in range(repeats):
                order = ("ours", "stock") if repeat % 2 == 0 else ("stock", "ours")
                measured = {name: side.seconds(name) for name in order}
                pairs.append(measured)
                print(f"  {method} pair {repeat + 1} of {repeats}: {measured}", flush=True)
            ratios = [pair["ours"][0] / pair["stock"][0] for pair in pairs]
            loss_gap = max(abs(pair["ours"][1] - pair["stock"][1]) for pair in pairs)
            results["methods"][method] = {
                "ratio": statistics.median(ratios),
                "ratios": ratios,
                "loss_difference": loss_gap,
                **share_of_rate(side),
            }
        lengths = [len(ids) for ids in tokenizer(list(rows["text"]), truncation=True, max_length=128)["input_ids"]]
        results["padding_share"] = {
            name: padding_share(lengths, bucketed, BATCH["masked_span"])
            for name, bucketed in (("length_bucketing", True), ("random_order", False))
        }
    return results


def show(results: dict[str, Any]) -> None:
    """Prints the tables."""
    print(f"\n{results['threads']} threads, {results['steps']} steps a run, {results['repeats']} pairs\n")
    print(f"{'':14}{'step / stock step':>20}{'range':>16}{'loss gap':>11}{'share of matmul rate':>23}")
    for method, row in results["methods"].items():
        spread = f"{min(row['ratios']):.2f}-{max(row['ratios']):.2f}"
        print(f"{method:14}{row['ratio']:>20.3f}{spread:>16}{row['loss_difference']:>11.1e}{row['share']:>23.2f}")
    print(f"{'goal':14}{'<= ' + str(GOALS['ratio']):>20}{'':>27}{'>= ' + str(GOALS['share']):>23}\n")
    for method, row in results["methods"].items():
        print(f"{method}: where the time of a step goes (self time of operators)")
        for kind, share in row["where_the_time_goes"].items():
            print(f"  {kind:28}{100 * share:6.1f} %")
    padding = results["padding_share"]
    print(f"\npadding: {100 * padding['length_bucketing']:.1f} % of the token slots with length bucketing, "
          f"{100 * padding['random_order']:.1f} % without")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps a run")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs")
    parser.add_argument("--no-save", action="store_true", help="do not write benchmarks/results/engine.json")
    parser.add_argument("--objective", help="a consistency method, against a hand-written loop: fixmatch")
    options = parser.parse_args()
    logging.set_verbosity_error()
    if options.objective:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = make_tokenizer(Path(folder))
            row = measure(
                options.objective, make_texts(4000), tokenizer, _classifier, StepTimes, options.steps, options.repeats
            )
        show_consistency(options.objective, row)
        return
    results = run(options.steps, options.repeats)
    show(results)
    if not options.no_save:
        results["command"] = f"python benchmarks/engine.py --steps {options.steps} --repeats {options.repeats}"
        results["cores"] = os.cpu_count()
        write_json(RESULTS, json.loads(json.dumps(results)))
        print(f"\nwritten to {RESULTS}")


if __name__ == "__main__":
    main()
