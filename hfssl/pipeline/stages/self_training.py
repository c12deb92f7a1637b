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
from hfssl.methods.self_training.frozen_encoder.cache import EMBEDDINGS_FILE
from hfssl.methods.self_training.rounds import SelfTraining
from hfssl.methods.self_training.teachers import Teacher, with_soup
from hfssl.methods.self_training.votes import Votes
from hfssl.metrics.accuracy_without_labels import average_thresholded_confidence
from hfssl.models.auto import from_pretrained
from hfssl.pipeline.context import Fold, StageContext
from hfssl.pipeline.costs import RunSizes, StageCost
from hfssl.pipeline.plan import RunPlan
from hfssl.pipeline.rounds import make_rounds
from hfssl.pipeline.stage_record import StageRecord, Trained
from hfssl.pipeline.stages import labels_only
from hfssl.pipeline.stages.labels_only_after_pretext import NAME as AFTER_PRETEXT
from hfssl.pipeline.stages.labels_only_after_pretext import starts_from_pretext
from hfssl.runtime.files import read_arrays
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
    plan, labeled, task, pool = context.plan, context.tokens["labeled"], context.task, context.pool()
    after_pretext = _starts_from_pretext(context)
    rounds = _rounds(context, folder, context.title, plan.rounds, len(labeled), after_pretext)
    teachers, votes = _first_teachers(context, folder, rounds, labeled, after_pretext)
    rounds.fit(
        teachers,
        labeled,
        pool,
        validation=context.tokens["validation"],
        votes=votes,
        hidden_labels=task.unit_labels(task.label_array(pool, "hidden_label")),
    )
    config = rounds.args
    used = context.splits["unlabeled"].select(plan.pool_rows[rounds.selected_rows()])
    taught_by = _names_of_teachers(context, after_pretext)
    settings = rounds.describe() | changed_settings(config) | {"starts_from_pretext": after_pretext}
    if votes is None:
        overrides = {f"teacher_{n + 1}": plan.preset.overrides(n) for n in range(config.num_teachers)}
        settings |= {name: changes for name, changes in overrides.items() if changes}
    return StageRecord(
        metrics=context.held_out.keep(folder, rounds.student_),
        manifests=[
            training_manifest(context.name, context.splits["labeled"], "labeled"),
            training_manifest(context.name, used, "unlabeled", taught_by=taught_by),
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
    place = context.run_folder.stage(selected)
    rounds = _rounds(context, place, context.title, context.plan.rounds, len(labeled), after_pretext)
    teachers = _teachers(context, folder, labeled, range(rounds.args.num_teachers), after_pretext)
    model, curves = rounds.refit(teachers, labeled, context.pool(), folder)
    manifests = [manifest for manifest in before.manifests if manifest["role"] == "unlabeled"]
    return Trained(model, before.config, curves, manifests)


def train_fold(context: StageContext, fold: Fold) -> PreTrainedModel:
    """Trains one student of an ensemble that has seen nothing of a fold, on a part of the pool."""
    plan, store = context.plan, context.fold_store
    after_pretext = _starts_from_pretext(context)
    seed = plan.seed(f"cross_fit-{fold.number}")
    embeddings = _stored_embeddings(context)
    rounds = make_rounds(
        context,
        fold.folder / "rounds",
        fold.title,
        rounds=1,
        labels=len(fold.labeled),
        seed=seed,
        after_pretext=after_pretext,
        overrides=plan.preset.at(len(fold.labeled)).fold_students,
        pool_embeddings=None if embeddings is None else embeddings[:, plan.fold_pool],
    )
    model = from_pretrained(store.model(context.teacher_stage, fold.number)).to(rounds.args.device)
    units = np.isin(context.task.unit_rows(len(plan.pool_rows), len(context.label_names)), plan.fold_pool)
    teacher = Teacher(model, bf16=rounds.args.bf16, task=context.task, pool_probs=store.pool(fold.number)[units])
    pool = context.pool().select(plan.fold_pool)
    rounds.fit([teacher], fold.labeled, pool, votes=store.votes(without=fold.number))
    return rounds.student_


def cost(sizes: RunSizes, stage: str) -> StageCost:
    """Returns the tokens of further teachers, of the students, and of scoring the pool before each round."""
    teachers = 0 if sizes.folds else sizes.num_teachers - 1  # with folds, these teach, and have scored the pool
    trained = teachers * sizes.labels_only(sizes.labels) + sizes.rounds * sizes.student(sizes.labels)
    scored = (0 if sizes.folds else sizes.scored(sizes.ensemble_size)) + (sizes.rounds - 1) * sizes.scored(1)
    return StageCost(stage, trained, scored + sizes.rounds * sizes.head_scored)


def _starts_from_pretext(context: StageContext) -> bool:
    """Returns whether to start from the encoder of the pretext stage, as the stage `folds` has decided, if it ran."""
    if context.run_folder.done("folds") is not None:
        return context.teacher_stage == AFTER_PRETEXT
    return starts_from_pretext(context)


def _rounds(
    context: StageContext, folder: Path, title: str, rounds: int, labels: int, after_pretext: bool
) -> SelfTraining:
    """Returns the driver of the stage's own rounds."""
    return make_rounds(
        context,
        folder,
        title,
        rounds=rounds,
        labels=labels,
        seed=context.plan.seed("self_training"),
        after_pretext=after_pretext,
        pool_embeddings=_stored_embeddings(context),
    )


def _stored_embeddings(context: StageContext) -> np.ndarray | None:
    """Returns the backbone's embeddings of the pool where the stage `folds` has stored them, `[H, N, D]`."""
    path = context.run_folder.stage("folds") / EMBEDDINGS_FILE
    return read_arrays(path)["layers"] if path.exists() else None


def _first_teachers(
    context: StageContext, folder: Path, rounds: SelfTraining, labeled: Dataset, after_pretext: bool
) -> tuple[list[PreTrainedModel | Teacher], Votes | None]:
    """Returns the teachers of the first round, and what they say about labels that they have not seen.

    With folds, these are the labels-only model and the teacher of each fold, which have scored the pool already; else
    several labels-only models.
    """
    model = from_pretrained(context.run_folder.stage(AFTER_PRETEXT if after_pretext else LABELS_ONLY) / "model")
    if context.plan.folds is None:
        numbers = range(1, rounds.args.num_teachers)
        return [model, *_teachers(context, folder, labeled, numbers, after_pretext)], None
    store, model = context.fold_store, model.to(rounds.args.device)
    scored = store.teachers_of_the_pool()
    if rounds.args.model_soup:
        stage = context.teacher_stage
        model = with_soup([model, *(from_pretrained(store.model(stage, n)) for n in range(context.plan.num_folds))])[0]
    options = {"bf16": rounds.args.bf16, "task": context.task}
    # They need no model of their own: they predict nothing but the pool, and the student starts from the first.
    return [Teacher(model, pool_probs=probs, **options) for probs in scored], store.votes()


def _names_of_teachers(context: StageContext, after_pretext: bool) -> list[str]:
    """Returns the names of the models that label the pool, for the audit."""
    stage = AFTER_PRETEXT if after_pretext else LABELS_ONLY
    return [stage, *(f"folds/{stage}-{number}" for number in range(context.plan.num_folds))]


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
