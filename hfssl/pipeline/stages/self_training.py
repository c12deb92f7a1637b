"""The self-training stage: rounds of teachers, pseudo-labels and a student, on the labeled rows and the pool."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from hfssl.config.stages import LABELS_ONLY, stage_row
from hfssl.data.audit import training_manifest
from hfssl.evaluation.alarms import drifted_class_prior, lost_classes, ood_pool, ood_rows_left_out, unlearned_labels
from hfssl.inference.scoring import predict_logits
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.rounds import SelfTraining
from hfssl.metrics.accuracy_without_labels import average_thresholded_confidence
from hfssl.models.auto import from_pretrained
from hfssl.pipeline.context import Fold, StageContext
from hfssl.pipeline.costs import RunSizes, StageCost
from hfssl.pipeline.plan import RunPlan
from hfssl.pipeline.stage_record import StageRecord, Trained
from hfssl.pipeline.stages import labels_only
from hfssl.pipeline.stages.labels_only_after_pretext import NAME as AFTER_PRETEXT
from hfssl.pipeline.stages.labels_only_after_pretext import starts_from_pretext
from hfssl.runtime.seeding import numpy_generator
from hfssl.training.config import changed_settings

__all__ = ["cost", "is_planned", "refit", "run", "train_fold"]

MIN_HELD_OUT = 30  # with fewer held-out labels an estimate that rests on their accuracy is too noisy
CHECKED_ROWS = 500  # rows of the pool on which the student is compared with its pseudo-labels


def is_planned(plan: RunPlan) -> bool:
    """Returns whether there are rounds to run."""
    return plan.rounds > 0


def run(context: StageContext, folder: Path) -> StageRecord:
    """Runs the rounds and measures the last student."""
    plan, labeled, task = context.plan, context.tokens["labeled"], context.task
    after_pretext = starts_from_pretext(context)
    seed = plan.seed("self_training")
    rounds = _rounds(context, folder, context.title, plan.rounds, len(labeled), seed, after_pretext)
    config = rounds.args
    first = context.run_folder.stage(AFTER_PRETEXT if after_pretext else LABELS_ONLY)
    teachers = [from_pretrained(first / "model")]
    teachers += _teachers(context, folder, labeled, range(1, config.num_teachers), after_pretext)
    pool = context.pool()
    rounds.fit(
        teachers,
        labeled,
        pool,
        validation=context.tokens["validation"],
        hidden_labels=task.unit_labels(task.label_array(pool, "hidden_label")),
    )
    used = context.splits["unlabeled"].select(plan.pool_rows[rounds.selected_rows()])
    settings = rounds.describe() | changed_settings(config) | {"starts_from_pretext": after_pretext}
    overrides = {f"teacher_{n + 1}": plan.preset.overrides(n) for n in range(config.num_teachers)}
    settings |= {name: changes for name, changes in overrides.items() if changes}
    return StageRecord(
        metrics=context.held_out.keep(folder, rounds.student_),
        manifests=[
            training_manifest(context.name, context.splits["labeled"], "labeled"),
            training_manifest(context.name, used, "unlabeled"),
        ],
        config={context.name: settings},
        curves=rounds.curves_,
        rounds=rounds.rounds_,
        **_observations(context, rounds, pool),
    )


def refit(context: StageContext, folder: Path, labeled: Dataset) -> Trained:
    """Repeats the last round with new teachers on all labeled rows; labels only where no round selected a row."""
    selected = context.selected_stage
    before = context.run_folder.done(selected)
    after_pretext = before.config[selected]["starts_from_pretext"]
    if not any(record["selected"] for record in before.rounds):
        return labels_only.train(context, folder, labeled, after_pretext=after_pretext)
    place, seed = context.run_folder.stage(selected), context.plan.seed("self_training")
    rounds = _rounds(context, place, context.title, context.plan.rounds, len(labeled), seed, after_pretext)
    teachers = _teachers(context, folder, labeled, range(rounds.args.num_teachers), after_pretext)
    model, curves = rounds.refit(teachers, labeled, context.pool(), folder)
    manifests = [manifest for manifest in before.manifests if manifest["role"] == "unlabeled"]
    return Trained(model, before.config, curves, manifests)


def train_fold(context: StageContext, fold: Fold) -> PreTrainedModel:
    """Trains one student on the labeled rows outside a fold; its teacher is the labels-only model of these rows."""
    after_pretext = starts_from_pretext(context)
    seed = context.plan.seed(f"cross_fit-{fold.number}")
    place = fold.folder / "rounds"
    rounds = _rounds(context, place, fold.title, 1, len(fold.labeled), seed, after_pretext)
    rounds.fit(fold.models[AFTER_PRETEXT if after_pretext else LABELS_ONLY], fold.labeled, context.pool())
    return rounds.student_


def cost(sizes: RunSizes, stage: str) -> StageCost:
    """Returns the tokens of further teachers, of the students, and of scoring the pool before each round."""
    trained = (sizes.num_teachers - 1) * sizes.labels_only(sizes.labels) + sizes.rounds * sizes.student(sizes.labels)
    scored = sizes.scored(sizes.ensemble_size) + (sizes.rounds - 1) * sizes.scored(1)
    return StageCost(stage, trained, scored + sizes.rounds * sizes.head_scored)


def _rounds(
    context: StageContext, folder: Path, title: str, rounds: int, labels: int, seed: int, after_pretext: bool
) -> SelfTraining:
    """Returns the driver of the rounds, with the preset's settings for that number of labeled rows."""
    factory = context.factory
    preset = context.plan.preset.at(labels)
    settings = preset.supervised | preset.self_training | {"rounds": rounds}
    settings |= {"class_prior": context.plan.arguments.class_prior}
    config = factory.config(SelfTrainingConfig, folder, settings, seed=seed)
    example = factory.classifier(config.seed, after_pretext=after_pretext)
    return SelfTraining(
        lambda seed: factory.classifier(seed, after_pretext=after_pretext),
        config,
        processing_class=context.tokenizer,
        label_names=context.label_names,
        output_dir=folder,
        peft_config=factory.peft_config(example),
        title=title,
    )


def _teachers(
    context: StageContext, folder: Path, labeled: Dataset, numbers: Iterable[int], after_pretext: bool
) -> list[PreTrainedModel]:
    """Returns labels-only models for an ensemble: number 0 is like the labels-only stage, the others differ."""
    return [
        context.factory.teacher(
            folder / f"teacher-{number}",
            f"{context.title}, teacher {number + 1}",
            labeled,
            stream=f"teacher-{number}",
            after_pretext=after_pretext,
            overrides=context.plan.preset.overrides(number),
        )
        for number in numbers
    ]


def _observations(context: StageContext, rounds: SelfTraining, pool: Dataset) -> dict[str, list[str]]:
    """Returns alarms, which speak against the student, and notes, which explain the verdict.

    The predictions are computed as in training, in bf16 where training used it: alarms do not need more precision.
    """
    task, proxy = context.task, context.tokens["proxy"]
    labels = task.unit_labels(context.held_out.labels("labeled"))
    alarms, notes = lost_classes(rounds.transduction_, labels, task.unit_classes(context.label_names)), []
    with torch.autocast(rounds.args.device.type, torch.bfloat16, enabled=rounds.args.bf16):
        alarms += _unlearned(context, rounds, pool)
        if len(proxy):
            student = task.unit_probs(predict_logits(rounds.student_, proxy, context.tokenizer))
            alarms += drifted_class_prior(student, rounds.class_prior_)
            notes += _estimates(context, student, rounds.args.device)
    if rounds.signals_ is not None:
        rows, filtered = rounds.signals_.out_of_distribution.rows, rounds.args.ood_filter
        alarms += ood_pool(rows, filtered=filtered and not rows.all())
        notes += ood_rows_left_out(rows) if filtered else []
    return {"alarms": alarms, "notes": notes}


def _unlearned(context: StageContext, rounds: SelfTraining, pool: Dataset) -> list[str]:
    """Returns an alarm if the student does not predict its pseudo-labels, by some of the rows that it learned from."""
    taught = np.flatnonzero(rounds.labeled_iter_ >= 0)
    if not len(taught):
        return []
    if len(taught) > CHECKED_ROWS:
        generator = numpy_generator(rounds.args.seed, "unlearned")
        taught = np.sort(generator.choice(taught, CHECKED_ROWS, replace=False))
    task, unit_rows = context.task, context.task.unit_rows(len(pool), len(context.label_names))
    numbers = np.unique(unit_rows[taught])
    rows = pool.select(numbers)
    logits = predict_logits(rounds.student_, rows, context.tokenizer), _labels_only(context, rows, rounds.args.device)
    checked = np.isin(np.flatnonzero(np.isin(unit_rows, numbers)), taught)  # of the units of these rows
    predicted = (task.unit_predicted(task.unit_probs(scores))[checked] for scores in logits)
    return unlearned_labels(*predicted, rounds.transduction_[taught])


def _labels_only(context: StageContext, rows: Dataset, device: torch.device) -> np.ndarray:
    """Returns logits `[N, K]` of the labels-only model."""
    model = from_pretrained(context.run_folder.stage(LABELS_ONLY) / "model")
    return predict_logits(model, rows, context.tokenizer, device=device)


def _estimates(context: StageContext, student_probs: np.ndarray, device: torch.device) -> list[str]:
    """Returns estimated accuracies of labels only and of the student on `proxy`, whose labels are not read."""
    held_out, task = context.held_out, context.task
    labels = task.unit_labels(held_out.labels("validation"))
    if len(labels) < MIN_HELD_OUT:
        return []
    before = task.unit_probs(_labels_only(context, context.tokens["proxy"], device))
    estimates: dict[str, Any] = {}
    for name, probs in ((LABELS_ONLY, before), (context.name, student_probs)):
        known = task.unit_probs(held_out.logits(name)["validation"])
        estimates[stage_row(name).model] = average_thresholded_confidence(known, labels, probs)
    shown = ", ".join(f"{name} {100 * estimate:.0f}%" for name, estimate in estimates.items())
    return [
        f"Accuracy on {len(student_probs):,} set-aside texts, estimated without their labels (average thresholded "
        f"confidence): {shown}; the estimate is as uncertain as the accuracy on the {len(labels)} held-out labels."
    ]
