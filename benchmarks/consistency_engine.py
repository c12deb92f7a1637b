"""What the engine costs for a consistency method: `python benchmarks/engine.py --objective fixmatch`.

Seconds a step over those of a hand-written loop that runs the same forward and backward passes on the same batches,
made beforehand; and the share of a step that making the views takes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import get_linear_schedule_with_warmup

from hfssl.config.methods import METHODS
from hfssl.runtime.cpu_kernels import cheap_operations
from hfssl.training.forward import joint_logits

GOALS = {"ratio": 1.05, "views": 0.05}
LABELED_ROWS, RATIO = 8, 4


def measure(
    method: str, rows: Any, tokenizer: Any, make_model: Any, step_times: Any, steps: int, repeats: int
) -> dict:
    """Ratio of the engine's step to that of the loop, and the share of the views; see the module.

    Args:
        method (`str`): `"fixmatch"`, whose loop is written out here.
        rows (`Dataset`): Texts with labels; half are labeled rows, half are the pool.
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer.
        make_model (`Callable`): Function that returns a fresh classifier.
        step_times (`type`): Callback class with `median()`.
        steps (`int`): Steps of a run.
        repeats (`int`): Pairs of runs.
    """
    if method != "fixmatch":
        raise SystemExit(f"only fixmatch has a hand-written loop, got {method!r}")
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            order = ("ours", "loop") if repeat % 2 == 0 else ("loop", "ours")
            measured = {}
            for name in order:
                trainer = _trainer(method, rows, tokenizer, make_model(), steps, Path(folder))
                measured[name] = _engine(trainer, step_times()) if name == "ours" else _loop(trainer, steps)
            pairs.append(measured)
            print(f"  {method} pair {repeat + 1} of {repeats}: {measured}", flush=True)
        views = _view_seconds(_trainer(method, rows, tokenizer, make_model(), steps, Path(folder)), steps)
    ratios = [pair["ours"][0] / pair["loop"][0] for pair in pairs]
    seconds = statistics.median(pair["ours"][0] for pair in pairs)
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "loss_difference": max(abs(pair["ours"][1] - pair["loop"][1]) for pair in pairs),
        "seconds_a_step": seconds,
        "views_share": views / seconds,
    }


def _trainer(method: str, rows: Any, tokenizer: Any, model: Any, steps: int, folder: Path) -> Any:
    row = METHODS[method]
    args = row.config_class(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=LABELED_ROWS, unlabeled_ratio=RATIO,
        save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, max_length=128, logging_steps=steps,
        confidence_threshold=0.0, seed=0,
    )  # fmt: skip
    half = len(rows) // 2
    return row.trainer_class(
        model,
        args,
        train_dataset=rows.select(range(half)),
        unlabeled_dataset=rows.select(range(half, len(rows))).select_columns(["text"]),
        processing_class=tokenizer,
    )


def _engine(trainer: Any, times: Any) -> tuple[float, float]:
    trainer.add_callback(times)
    trainer.train()
    return times.median(), trainer.state.log_history[0]["loss/labeled"]


def _loop(trainer: Any, steps: int) -> tuple[float, float]:
    """The loop that a researcher would write, on the trainer's own batches; median seconds, mean labeled loss."""
    model, args = trainer.model.train(), trainer.args
    batches = []
    while len(batches) < steps:
        batches += [batch for batch, _ in zip(trainer.get_train_dataloader(), range(steps), strict=False)]
    head = [weight for name, weight in model.named_parameters() if name.startswith("classifier")]
    body = [weight for name, weight in model.named_parameters() if not name.startswith("classifier")]
    groups = [{"params": body}, {"params": head, "lr": args.head_learning_rate}]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, weight_decay=args.weight_decay, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, round(args.warmup_steps * steps), steps)
    torch.manual_seed(0)
    seconds, losses = [], []
    for batch in batches[:steps]:
        start = time.perf_counter()
        with cheap_operations(model):
            loss, labeled = _fixmatch(model, batch)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
        losses.append(labeled.item())
    return statistics.median(seconds[3:]), sum(losses) / len(losses)


def _fixmatch(model: Any, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        weak = joint_logits(model, batch["unlabeled"]["weak"])[0].softmax(-1)
    logits, strong = joint_logits(model, batch["labeled"], batch["unlabeled"]["strong"])
    labeled = F.cross_entropy(logits, batch["labeled"]["labels"])
    confidence, label = weak.max(-1)
    losses = F.cross_entropy(strong, label, reduction="none") * (confidence >= 0.0)
    return labeled + losses.mean(), labeled


def _view_seconds(trainer: Any, steps: int) -> float:
    """Seconds a step that the views of the pool take, beyond padding the rows as they are."""
    collator = trainer.get_train_dataloader().collate_fn
    pool = trainer.unlabeled_dataset
    size = LABELED_ROWS * RATIO
    spent = []
    for step in range(steps):
        numbers = [(step * size + i) % len(pool) for i in range(size)]
        columns = pool[numbers]
        rows = [{name: column[i] for name, column in columns.items()} | {"row": numbers[i], "draw": 0}
                for i in range(size)]  # fmt: skip
        start = time.perf_counter()
        for view in collator.unlabeled_views.values():
            view(rows)
        made = time.perf_counter() - start
        start = time.perf_counter()
        for _ in collator.unlabeled_views:
            collator.labeled_view(rows)
        spent.append(made - (time.perf_counter() - start))
    return statistics.median(spent)


def show(method: str, row: Mapping[str, Any]) -> None:
    """Prints the result."""
    ratios = f"{min(row['ratios']):.3f}-{max(row['ratios']):.3f}"
    print(f"{method}: step / hand-written step {row['ratio']:.3f} ({ratios}), goal <= {GOALS['ratio']}")
    print(f"{method}: views {100 * row['views_share']:.1f} % of a step, goal <= {100 * GOALS['views']:.0f} %")
    print(f"{method}: {row['seconds_a_step']:.3f} s a step; labeled losses differ by {row['loss_difference']:.1e}")
