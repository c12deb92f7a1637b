"""A stage of `fit` as a contributor would write it, for the tests that prove that a file and a row are enough."""

from __future__ import annotations

from pathlib import Path

from datasets import concatenate_datasets

from hfssl.config.stages import LABELS_ONLY, Stage
from hfssl.data.audit import training_manifest
from hfssl.inference.scoring import predict_logits
from hfssl.models.auto import from_pretrained
from hfssl.pipeline.context import StageContext
from hfssl.pipeline.model_factory import descriptions
from hfssl.pipeline.stage_record import StageRecord

ROW = Stage(title="Pseudo-labels once", run="tests.helpers.toy_stage:run", model_title="once-taught")


def run(context: StageContext, folder: Path) -> StageRecord:
    """Fine-tunes on the labeled rows and on the pool with the labels that the labels-only model predicts."""
    teacher = from_pretrained(context.run_folder.stage(LABELS_ONLY) / "model")
    pool, labeled = context.pool(), context.tokens["labeled"]
    predicted = predict_logits(teacher, pool, context.tokenizer).argmax(axis=-1)
    texts = concatenate_datasets([part.select_columns("input_ids") for part in (labeled, pool)])
    rows = texts.add_column("labels", [*labeled["labels"][:], *predicted.tolist()])
    seed = context.plan.seed(context.name)
    trainers = context.factory.labels_only(folder, context.title, rows, seed=seed, after_pretext=False)
    return StageRecord(
        metrics=context.held_out.keep(folder, trainers["supervised"].model),
        manifests=[
            training_manifest(context.name, context.splits["labeled"], "labeled"),
            training_manifest(context.name, context.splits["unlabeled"].select(context.plan.pool_rows), "unlabeled"),
        ],
        config=descriptions(trainers),
        curves=trainers["supervised"].state.log_history,
    )
