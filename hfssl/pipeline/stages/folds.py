"""The stage of the folds: models that learn from all labels but those of a fold, and what they say about it.

Every label is learned from, by the final models and by those of the other folds, and every label judges: the models
without its fold have not seen it. What they say decides how much each member of the ensemble counts in the labels of
the pool, and the temperature of the final model; with the folds' students it is the evidence of the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedModel

from hfssl.config.methods import resolve
from hfssl.config.stages import LABELS_ONLY, STAGES
from hfssl.data.audit import evidence_manifest, training_manifest
from hfssl.evaluation.cross_fitting import cross_fit
from hfssl.methods.self_training.frozen_encoder.embeddings import embed_layers
from hfssl.methods.self_training.rounds import SelfTraining
from hfssl.methods.self_training.teachers import Teacher, form_ensemble
from hfssl.methods.self_training.votes import TEACHERS
from hfssl.models.auto import from_pretrained
from hfssl.pipeline.context import Fold, StageContext
from hfssl.pipeline.costs import RunSizes, StageCost
from hfssl.pipeline.fold_store import FoldStore
from hfssl.pipeline.plan import RunPlan
from hfssl.pipeline.rounds import make_rounds
from hfssl.pipeline.stage_record import StageRecord
from hfssl.pipeline.stages.labels_only_after_pretext import NAME as AFTER_PRETEXT
from hfssl.pipeline.stages.labels_only_after_pretext import starts_from_pretext

__all__ = ["SCORED_PARTS", "cost", "is_planned", "run"]

SCORED_PARTS = ("proxy",)
"""Parts that the ensemble predicts in addition to the pool; benchmarks add `test`."""


def is_planned(plan: RunPlan) -> bool:
    """Returns whether there are folds."""
    return plan.folds is not None


def run(context: StageContext, folder: Path) -> StageRecord:
    """Trains the labels-only models of each fold; with self-training, also collects the votes of its ensemble."""
    plan, labeled = context.plan, context.tokens["labeled"]

    def models(place: Path, number: int, rows: Dataset) -> dict[str, PreTrainedModel]:
        trained: dict[str, PreTrainedModel] = {}
        title = f"{context.title}, fold {number + 1} of {plan.num_folds}"
        for name in _labels_only_stages(plan):
            fold = Fold(place, number, title, rows, trained)
            trained[name] = resolve(STAGES[name].train_fold)(context.named(name), fold)
        return trained

    proxy = {"proxy": context.tokens["proxy"]}
    cross_fit(folder, labeled, proxy, plan.folds, models, context.tokenizer, keep_models=True)
    after_pretext = starts_from_pretext(context)
    if plan.rounds:
        _collect_votes(context, folder, after_pretext)
    settings = {"teacher_stage": AFTER_PRETEXT if after_pretext else LABELS_ONLY, "folds": plan.num_folds}
    return StageRecord(manifests=_manifests(context), config={context.name: settings})


def cost(sizes: RunSizes, stage: str) -> StageCost:
    """Returns the tokens of the folds' teachers, and of scoring the pool with them and that of all labels."""
    trained = sizes.folds * sizes.num_labels_only * sizes.fold_teacher
    return StageCost(stage, trained, sizes.scored(sizes.folds + 1) if sizes.rounds else 0)


def _labels_only_stages(plan: RunPlan) -> list[str]:
    return [name for name in plan.judged if name in (LABELS_ONLY, AFTER_PRETEXT)]


def _manifests(context: StageContext) -> list[dict]:
    """Returns which labels each fold's model has learned from, and of which rows its predictions are evidence."""
    rows, numbers = context.splits["labeled"], context.plan.folds
    found = []
    for fold in range(context.plan.num_folds):
        seen, unseen = rows.select(np.flatnonzero(numbers != fold)), rows.select(np.flatnonzero(numbers == fold))
        for name in _labels_only_stages(context.plan):
            model = f"folds/{name}-{fold}"
            found.append(training_manifest(context.name, seen, "labeled", model=model))
            found.append(evidence_manifest(context.name, unseen, model=model))
    return found


def _collect_votes(context: StageContext, folder: Path, after_pretext: bool) -> None:
    """Stores what the members of the ensemble say about each fold, about the pool, and about `SCORED_PARTS`."""
    plan, labeled, store = context.plan, context.tokens["labeled"], context.fold_store
    rounds = make_rounds(
        context,
        folder,
        context.title,
        rounds=plan.rounds,
        labels=len(labeled),
        seed=plan.seed("self_training"),
        after_pretext=after_pretext,
    )
    parts = {"unlabeled": context.pool()}
    parts |= {name: context.tokens[name] for name in SCORED_PARTS if len(context.tokens[name])}
    stage = AFTER_PRETEXT if after_pretext else LABELS_ONLY
    for fold in range(plan.num_folds):
        if not store.has_votes(fold):
            _collect_fold(rounds, store, fold, stage, labeled, plan.folds, parts)
    if not store.has_everyone():
        _collect_everyone(rounds, store, context.run_folder.stage(stage) / "model", labeled, parts)


def _collect_fold(
    rounds: SelfTraining,
    store: FoldStore,
    fold: int,
    stage: str,
    labeled: Dataset,
    numbers: np.ndarray,
    parts: dict[str, Dataset],
) -> None:
    """Stores the votes of the ensemble without a fold; all its members have seen only the other folds' labels."""
    rest, unseen = labeled.select(np.flatnonzero(numbers != fold)), labeled.select(np.flatnonzero(numbers == fold))
    own, refitted = _predict(rounds, store.model(stage, fold), [rest, labeled], {"fold": unseen} | parts)
    signals = rounds.labeler.cache.signals(rest, parts["unlabeled"], unseen, store.folder / f"fold-{fold}")
    votes = {TEACHERS: own["fold"]} if signals is None else signals.held_out_votes(own["fold"], own["unlabeled"])
    store.save_votes(fold, votes, own["unlabeled"], {part: refitted[part] for part in parts})


def _collect_everyone(
    rounds: SelfTraining, store: FoldStore, model: Path, labeled: Dataset, parts: dict[str, Dataset]
) -> None:
    """Stores what the teacher of all labels says, and the mixture of all members for `SCORED_PARTS`."""
    found = _predict(rounds, model, [labeled], parts)[0]
    others = [name for name in parts if name != "unlabeled"]
    means = {part: np.mean([found[part], *store.refitted(part)], axis=0) for part in parts}
    votes = {part: {TEACHERS: means[part]} for part in others}
    if others:
        columns = [n for n in parts["unlabeled"].column_names if n in rounds.tokenizer.model_input_names]
        rows = concatenate_datasets([parts[part].select_columns(columns) for part in others])
        signals = rounds.labeler.cache.signals(labeled, parts["unlabeled"], rows, store.folder / "everyone")
        if signals is not None:
            said = signals.held_out_votes(np.concatenate([means[part] for part in others]), means["unlabeled"])
            ends = np.cumsum([len(means[part]) for part in others])[:-1]
            split = {name: np.split(probs, ends) for name, probs in said.items()}
            votes = {part: {name: found[i] for name, found in split.items()} for i, part in enumerate(others)}
    store.save_everyone(found, votes)


def _predict(
    rounds: SelfTraining, folder: Path, fitted_to: Sequence[Dataset], parts: Mapping[str, Dataset]
) -> list[dict[str, np.ndarray]]:
    """Returns the probabilities of a teacher for each part, once for each set of rows that its probe is fitted to.

    The model reads each row of the parts once.

    Args:
        rounds (`SelfTraining`): Driver with the settings of the teachers.
        folder (`Path`): Folder of the model.
        fitted_to (`Sequence[Dataset]`): Labeled rows for the probe; a teacher without one is the same for all.
        parts (`Mapping[str, Dataset]`): Part -> tokenized rows.
    """
    args, tokenizer, task = rounds.args, rounds.tokenizer, rounds.task
    model = from_pretrained(folder).to(args.device)
    if not args.teacher_probe:
        teacher = Teacher(model, bf16=args.bf16, task=task)
        return [{name: teacher.probs(rows, tokenizer) for name, rows in parts.items()}] * len(fitted_to)
    classes = len(rounds.label_names)
    options = {"num_classes": classes, "bf16": args.bf16, "task": task}
    probes = [form_ensemble([model], rows, tokenizer, **options)[0].probe for rows in fitted_to]
    found: list[dict[str, np.ndarray]] = [{} for _ in probes]
    for name, rows in parts.items():
        progress = None if args.disable_tqdm or name != "unlabeled" else f"{rounds.title}: scoring the pool"
        embedded = embed_layers(model, rows, tokenizer, upper=False, bf16=args.bf16, progress=progress)
        for probs, probe in zip(found, probes, strict=True):
            probs[name] = probe.probs(embedded).astype(np.float32)
    return found
