"""How the stages of `fit` train: settings from preset and arguments, models from the backbone, teachers by seed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.config.arguments import FitArguments
from hfssl.methods.contrastive import ContrastiveConfig, ContrastiveTrainer
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.supervised import SupervisedConfig, SupervisedTrainer
from hfssl.models.adapters import requested_lora_config
from hfssl.models.auto import from_pretrained
from hfssl.models.checkpoints import save_checkpoint
from hfssl.models.loading import Pooling, load_classifier
from hfssl.pipeline.presets import Preset
from hfssl.reporting.markdown import slug
from hfssl.runtime.precision import precision_arguments
from hfssl.runtime.seeding import derive_seed
from hfssl.training.config import SSLConfig, changed_settings
from hfssl.training.trainer import SSLTrainer

__all__ = ["ModelMaker", "description", "descriptions"]

# An adapter learns at ten times the rate of full fine-tuning (Schulman et al. 2025, "LoRA Without Regret"). At the
# same rate it had learned next to nothing when the few steps of a preset were over. A student, who has three times the
# rate of fine-tuning already, fell apart at ten times that (benchmarks/NOTES.md, 2026-11-26).
LORA_RATE, LORA_STUDENT_RATE = 10.0, 5.0


class ModelMaker:
    """Trains the models that learn from labels alone, as the preset and the arguments say.

    Args:
        arguments (`FitArguments`): The run's arguments.
        preset (`Preset`): Settings of the stages.
        tokenizer (`PreTrainedTokenizerBase`): The backbone's tokenizer.
        label_names (`list[str]`): K names.
        adapted (`Path`): Where the adapted backbone lies, once there is one.
    """

    def __init__(
        self,
        arguments: FitArguments,
        preset: Preset,
        tokenizer: PreTrainedTokenizerBase,
        label_names: list[str],
        adapted: Path,
    ):
        self.arguments, self.preset, self.tokenizer = arguments, preset, tokenizer
        self.label_names, self.adapted = label_names, adapted
        given = {"max_steps": arguments.max_steps, "learning_rate": arguments.learning_rate}
        self.given = {name: value for name, value in given.items() if value is not None}

    def seed(self, name: str) -> int:
        """The seed of one stage or teacher, from the run's."""
        return derive_seed(self.arguments.seed, name) % 2**31  # transformers takes 32-bit seeds

    def config(self, kind: type[SSLConfig], folder: Path, settings: dict[str, Any], *, seed: int) -> Any:
        """The arguments of a trainer that works in `folder`: the preset's `settings`, and what the user gave.

        The preset's learning rates are those of full fine-tuning; adapters get a multiple (`LORA_RATE`).
        """
        output = Path(self.arguments.output_dir)
        given = self.given if issubclass(kind, SupervisedConfig) else {}
        config = kind(
            **settings | given,
            **precision_arguments(self.arguments.precision),
            output_dir=str(folder / "checkpoints"),
            seed=seed,
            max_length=self.arguments.max_length,
            report_to=self.arguments.report_to,
            project=slug(output.resolve().name),
            tensorboard_dir=str(output / "tensorboard"),
            disable_tqdm=self.arguments.quiet,
        )
        if self.arguments.adapter == "lora" and "learning_rate" not in given:
            factor = LORA_STUDENT_RATE if kind is SelfTrainingConfig else LORA_RATE
            config = replace(config, learning_rate=factor * config.learning_rate)
        return config

    def classifier(self, seed: int, *, adapted: bool, pooling: Pooling | None = None) -> PreTrainedModel:
        """A fresh classifier on the backbone, or on the `adapted` one; `pooling` as the user says unless given."""
        backbone = self.adapted if adapted else self.arguments.backbone
        return load_classifier(backbone, self.label_names, pooling=pooling or self.arguments.pooling, seed=seed)

    def peft_config(self, model: PreTrainedModel, task: str) -> PeftConfig | None:
        """The LoRA settings for `model`; `None` where all weights are trained."""
        return requested_lora_config(self.arguments, model, task)

    def supervised(
        self,
        folder: Path,
        title: str,
        labeled: Dataset,
        *,
        seed: int,
        adapted: bool,
        overrides: Mapping[str, Any] | None = None,
    ) -> dict[str, SSLTrainer]:
        """Fine-tunes on the labels, after a contrastive contrastive stage on the same rows where the preset has one.

        Args:
            folder: for checkpoints.
            title: names the progress bars.
            labeled: tokenized rows with `labels`.
            seed: of everything that is drawn.
            adapted: whether to start from the adapted backbone.
            overrides: settings of the contrastive stage that differ from the preset's.

        Returns the trainers by the name of their step, in order; `"supervised"` is the last.
        """
        trainers: dict[str, SSLTrainer] = {}
        model = self.classifier(seed, adapted=adapted)
        peft_config = self.peft_config(model, "sequence_classification")
        preset = self.preset.at(len(labeled))
        if preset.contrastive is not None:
            place = folder / "checkpoints" / "contrastive"
            trainers["contrastive"] = ContrastiveTrainer(
                model,
                self.config(ContrastiveConfig, place, {**preset.contrastive, **(overrides or {})}, seed=seed),
                train_dataset=labeled,
                processing_class=self.tokenizer,
                peft_config=peft_config,
                title=f"{title}, contrastive stage",
            )
            trainers["contrastive"].train(resume_from_checkpoint=True)
            model, peft_config = trainers["contrastive"].model, None  # with LoRA it carries its adapter now
        trainers["supervised"] = SupervisedTrainer(
            model,
            self.config(SupervisedConfig, folder, preset.supervised, seed=seed),
            train_dataset=labeled,
            processing_class=self.tokenizer,
            peft_config=peft_config,
            title=title,
        )
        if trainers["supervised"].args.max_steps != 0:  # else the head's start is all
            trainers["supervised"].train(resume_from_checkpoint=True)
        return trainers

    def teacher(
        self,
        place: Path,
        title: str,
        labeled: Dataset,
        *,
        adapted: bool,
        overrides: Mapping[str, Any] | None = None,
    ) -> PreTrainedModel:
        """A labels-only model of another seed, which goes by the name of the folder `place` that keeps it.

        Args:
            place: gets `model/`; what lies there already is not trained again.
            title, labeled, adapted, overrides: as in `supervised`.
        """
        if not (place / "model").exists():
            seed = self.seed(place.name)
            trainers = self.supervised(place, title, labeled, seed=seed, adapted=adapted, overrides=overrides)
            save_checkpoint(trainers["supervised"].model, self.tokenizer, place / "model", self.label_names)
        shutil.rmtree(place / "checkpoints", ignore_errors=True)
        return from_pretrained(place / "model")


def descriptions(trainers: Mapping[str, SSLTrainer]) -> dict[str, dict[str, Any]]:
    """`description` of each step."""
    return {step: description(trainer) for step, trainer in trainers.items()}


def description(trainer: SSLTrainer) -> dict[str, Any]:
    """The method of a step and what was set, for the report and the card: what every default is, the versions say."""
    described = trainer.objective.describe()
    return {name: described[name] for name in ("method", "paper", "citation")} | changed_settings(trainer.args)
