"""Makes the driver of self-training from the settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.rounds import SelfTraining
from hfssl.pipeline.context import StageContext

__all__ = ["make_rounds"]


def make_rounds(
    context: StageContext,
    folder: Path,
    title: str,
    *,
    rounds: int,
    labels: int,
    seed: int,
    after_pretext: bool,
    overrides: Mapping[str, Any] | None = None,
    pool_embeddings: np.ndarray | None = None,
) -> SelfTraining:
    """Returns the driver of the rounds, with the preset's settings for that number of labeled rows.

    Args:
        context (`StageContext`): Context of the stage.
        folder (`Path`): Folder of the rounds.
        title (`str`): Title of the progress bars.
        rounds (`int`): Largest number of rounds.
        labels (`int`): Number of labeled rows that the students learn from.
        seed (`int`): Random seed of the students.
        after_pretext (`bool`): Whether students and embeddings start from the encoder of the pretext stage.
        overrides (`Mapping[str, Any]`, *optional*): Settings that differ from the preset's.
        pool_embeddings (`np.ndarray`, *optional*): The pool's embeddings by the backbone, `[H, N, D]`.
    """
    factory = context.factory
    preset = context.plan.preset.at(labels)
    settings = preset.supervised | preset.self_training | dict(overrides or {}) | {"rounds": rounds}
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
        pool_embeddings=pool_embeddings,
    )
