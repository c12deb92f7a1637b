"""`--max-seconds`: a plan that is expected to end in time.

The speed of the machine is measured by a few steps on the user's own rows. If the run is expected to take longer than
it may, what costs most and brings least goes first: rows of the pool, students that only judge, folds, steps, and at
last self-training itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from transformers.utils import logging

from hfssl.pipeline.context import StageContext, make_context
from hfssl.pipeline.costs import TRAINING, estimate_costs, sizes_of
from hfssl.pipeline.plan import make_plan
from hfssl.pipeline.presets import Preset
from hfssl.runtime.files import read_checked_json, write_checked_json
from hfssl.runtime.precision import precision_arguments

__all__ = ["cheaper_presets", "within_budget"]

logger = logging.get_logger(__name__)

BUDGET_FILE = "budget.json"
BATCH, TIMED_STEPS = 32, 3
# Optimizer, batches, checkpoints and report: factor on the time of the passes, and seconds of a run without any.
OVERHEAD, FIXED_SECONDS = 1.4, 10.0
STEPS = ("contrastive", "fold_teachers", "self_training", "fold_students", "supervised", "pretext")


def within_budget(context: StageContext) -> StageContext:
    """Returns the context of a run that is expected to take `max_seconds` at most; the same one without a limit.

    The choice is written to the run's folder, so that a resumed run makes the same models.

    Args:
        context (`StageContext`): Context of the first stage.
    """
    arguments, path = context.plan.arguments, context.run_folder.path / BUDGET_FILE
    if arguments.max_seconds is None:
        return context
    if not path.is_file():
        write_checked_json(path, _choose(context, arguments.max_seconds))
    chosen = read_checked_json(path)
    if chosen["notice"]:
        logger.warning(chosen["notice"])
    return _with_preset(context, cheaper_presets(context.plan.preset)[chosen["number"]][1])


def cheaper_presets(preset: Preset) -> list[tuple[dict[str, str], Preset]]:
    """Returns (kind of cut -> words for it, settings), from the preset itself to the cheapest.

    Args:
        preset (`Preset`): Settings of the stages.

    Example:
        >>> from hfssl.pipeline.budget import cheaper_presets
        >>> from hfssl.pipeline.presets import Preset
        >>> cheaper_presets(Preset(max_pool_rows=1000))[1][0]
        {'pool': '500 rows of the pool'}
    """
    cuts, found = {}, []
    for kind, words, settings in _cheaper(preset):
        cuts = cuts | ({kind: words} if words else {})
        found.append((cuts, settings))
    return found


def _cheaper(preset: Preset) -> Iterator[tuple[str, str, Preset]]:
    yield "", "", preset
    pool = preset.max_pool_rows or 16_384
    while pool > 500:
        pool = max(500, pool // 2)
        preset = replace(preset, max_pool_rows=pool, fold_pool_rows=min(pool, preset.fold_pool_rows))
        yield "pool", f"{pool:,} rows of the pool", preset
    if preset.fold_students is not None:
        preset = replace(preset, fold_students=None)
        yield "students", "no students of the folds", preset
    if preset.cross_fit > 2:
        preset = replace(preset, cross_fit=2)
        yield "folds", "two folds", preset
    whole = preset
    for share in (0.7, 0.5, 0.3):
        preset = replace(whole, **{name: _shorter(getattr(whole, name), share) for name in STEPS})
        yield "steps", f"{share:.0%} of the steps", preset
    yield "folds", "no folds", replace(preset, cross_fit=0)
    yield (
        "rounds",
        "no self-training",
        replace(preset, cross_fit=0, self_training=preset.self_training | {"rounds": 0}),
    )


def _shorter(settings: dict[str, Any] | None, share: float) -> dict[str, Any] | None:
    if not settings or "max_steps" not in settings:
        return settings
    return settings | {"max_steps": round(share * settings["max_steps"])}


def _with_preset(context: StageContext, preset: Preset) -> StageContext:
    plan = make_plan(context.plan.arguments, preset, context.splits)
    return make_context(plan, context.run_folder, context.splits, context.tokenizer, tokens=context.tokens)


def _choose(context: StageContext, max_seconds: float) -> dict[str, Any]:
    """Returns the number of the first of `cheaper_presets` that is expected to end in time, else of the last."""
    speed, presets, number = _units_per_second(context), cheaper_presets(context.plan.preset), 0
    while True:
        cuts, preset = presets[number]
        plan = _with_preset(context, preset).plan
        units = sum(cost.units for cost in estimate_costs(sizes_of(plan, context.tokens)))
        seconds = FIXED_SECONDS + OVERHEAD * units / speed
        if seconds <= max_seconds or number + 1 == len(presets):
            break
        number += 1
    found = {"number": number, "expected_seconds": seconds, "notice": ""}
    if seconds > max_seconds:
        found["notice"] = (
            f"max_seconds={max_seconds:g} is less than the cheapest run is expected to take on this machine, about "
            f"{seconds:.0f} seconds; it is run all the same."
        )
    elif number:
        found["notice"] = (
            f"To end within {max_seconds:g} seconds, the run was cut down to: {', '.join(cuts.values())}."
        )
    return found


def _units_per_second(context: StageContext) -> float:
    """Returns the forward passes of one token that the machine makes in a second, by training steps."""
    model = context.factory.classifier(0, after_pretext=False)
    rows = context.tokens["unlabeled" if len(context.tokens["unlabeled"]) else "labeled"]
    columns = [name for name in rows.column_names if name in context.tokenizer.model_input_names]
    rows = rows.select_columns(columns).select(range(min(BATCH, len(rows))))
    batch = context.tokenizer.pad(rows[:], return_tensors="pt")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, batch = model.to(device).train(), batch.to(device)
    bf16 = precision_arguments(context.plan.arguments.precision)["bf16"]
    for step in range(TIMED_STEPS + 1):
        if step == 1:  # the first step also warms up
            started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = model(**batch).logits.float().logsumexp(dim=-1).mean()
        loss.backward()
    return TRAINING * TIMED_STEPS * batch["input_ids"].numel() / (time.perf_counter() - started)
