"""The pretext stage: adapts the backbone to the raw text by masked spans, and saves an encoder."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, concatenate_datasets

from hfssl.data.audit import training_manifest
from hfssl.methods.pretext.masked_span import MaskedSpanConfig, MaskedSpanTrainer
from hfssl.models.checkpoints import plain_model, save_checkpoint
from hfssl.models.loading import load_masked_lm, transfer_encoder
from hfssl.pipeline.context import StageContext
from hfssl.pipeline.costs import RunSizes, StageCost
from hfssl.pipeline.model_factory import description
from hfssl.pipeline.plan import RunPlan
from hfssl.pipeline.presets import PRETEXT_ON_REQUEST
from hfssl.pipeline.stage_record import StageRecord

__all__ = ["cost", "is_planned", "run"]


def is_planned(plan: RunPlan) -> bool:
    """Returns whether the user or the preset requests the stage, and there are unlabeled rows."""
    asked = plan.preset.pretext is not None if plan.arguments.pretext is None else plan.arguments.pretext
    return asked and plan.rows["unlabeled"] > 0


def run(context: StageContext, folder: Path) -> StageRecord:
    """Trains on all training texts, evaluates on `proxy`, which it never trains on, and saves `encoder/`."""
    factory, plan = context.factory, context.plan
    settings = plan.preset.pretext or PRETEXT_ON_REQUEST
    config = factory.config(MaskedSpanConfig, folder, settings, seed=plan.seed("pretext"))
    model = load_masked_lm(plan.arguments.backbone, seed=config.seed, revision=plan.arguments.revision)
    texts = concatenate_datasets([_texts(context.splits[name]) for name in ("labeled", "unlabeled")])
    trainer = MaskedSpanTrainer(
        model,
        config,
        unlabeled_dataset=texts,
        eval_dataset=context.splits["proxy"] if len(context.splits["proxy"]) else None,
        processing_class=context.tokenizer,
        peft_config=factory.peft_config(model, masked_lm=True),
        title=context.title,
    )
    trainer.train(resume_from_checkpoint=True)
    # Saved as an encoder without a head, like the backbone itself, so that every later stage, LoRA included, only
    # starts from another folder. Parts that the masked LM lacks (a pooler) are those of the backbone.
    encoder = factory.classifier(config.seed, after_pretext=False).base_model
    transfer_encoder(plain_model(trainer.model), encoder)
    save_checkpoint(encoder, context.tokenizer, folder / "encoder")
    return StageRecord(
        manifests=[training_manifest(context.name, texts, "unlabeled")],
        config={"pretext": description(trainer)},
        curves=trainer.state.log_history,
    )


def cost(sizes: RunSizes, stage: str) -> StageCost:
    """Returns the tokens of masked-span training."""
    settings = sizes.preset.pretext or PRETEXT_ON_REQUEST
    return StageCost(stage, sizes.trained(MaskedSpanConfig, settings, sizes.lengths["unlabeled"]))


def _texts(part: Dataset) -> Dataset:
    """Returns the rows without labels and other columns."""
    return part.remove_columns([name for name in part.column_names if name not in ("text", "text_pair")])
