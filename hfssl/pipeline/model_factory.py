"""Training for the stages of `fit`: settings from preset and arguments, models from the backbone, teachers by seed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from copy import deepcopy
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
from hfssl.models.loading import load_classifier
from hfssl.pipeline.presets import Preset
from hfssl.reporting.markdown import slug
from hfssl.runtime.precision import precision_arguments
from hfssl.runtime.seeding import derive_seed
from hfssl.tasks.registry import get_task
from hfssl.training.config import SSLConfig, changed_settings
from hfssl.training.extras import run_extras
from hfssl.training.trainer import SSLTrainer

__all__ = ["ModelFactory", "description", "descriptions"]

# An adapter learns at ten times the rate of full fine-tuning (Schulman et al. 2025, "LoRA Without Regret"). At the
# same rate it learns almost nothing in the few steps of a preset. A student already has three times the rate of
# fine-tuning, and diverges at ten times its own rate (benchmarks/NOTES.md, 2026-11-26).
LORA_RATE, LORA_STUDENT_RATE = 10.0, 5.0


class ModelFactory:
    """Makes models and training arguments, and trains labels-only models, by the preset and the arguments.

    Args:
        arguments (`FitArguments`): The run's arguments.
        preset (`Preset`): Settings of the stages.
        tokenizer (`PreTrainedTokenizerBase`): The backbone's tokenizer.
        label_names (`list[str]`): Names of the K classes.
        encoder (`Path`): Folder in which the pretext stage saves its encoder.
    """

    def __init__(
        self,
        arguments: FitArguments,
        preset: Preset,
        tokenizer: PreTrainedTokenizerBase,
        label_names: list[str],
        encoder: Path,
    ):
        self.arguments, self.preset, self.tokenizer = arguments, preset, tokenizer
        self.label_names, self.encoder = label_names, encoder
        self.task = get_task(arguments.task)
        given = {
            "max_steps": arguments.max_steps,
            "learning_rate": arguments.learning_rate,
            "per_device_train_batch_size": arguments.batch_size,
            "class_weights": arguments.class_weights,
        }
        self.given = {name: value for name, value in given.items() if value is not None}

    def config(self, kind: type[SSLConfig], folder: Path, settings: dict[str, Any], *, seed: int) -> Any:
        """Returns the arguments of a trainer that works in `folder`: the preset's `settings`, and those of the user.

        The preset's learning rates are those of full fine-tuning; adapters get a multiple (`LORA_RATE`).

        Args:
            kind (`type[SSLConfig]`): Class of the arguments.
            folder (`Path`): Folder of the stage.
            settings (`dict[str, Any]`): Values of the preset that differ from the defaults of that class.
            seed (`int`): Random seed of the training.
        """
        output = Path(self.arguments.output_dir)
        given = self.given if issubclass(kind, SupervisedConfig) else {}
        device = {"use_cpu": True} if self.arguments.device == "cpu" else {}
        config = kind(
            **settings | given,
            **precision_arguments(self.arguments.precision) | device,
            output_dir=str(folder / "checkpoints"),
            seed=seed,
            max_length=self.arguments.max_length,
            task=self.arguments.task,
            report_to=self.arguments.report_to,
            project=slug(output.resolve().name),
            tensorboard_dir=str(output / "tensorboard"),
            disable_tqdm=self.arguments.quiet,
        )
        if self.arguments.adapter == "lora" and "learning_rate" not in given:
            factor = LORA_STUDENT_RATE if kind is SelfTrainingConfig else LORA_RATE
            config = replace(config, learning_rate=factor * config.learning_rate)
        return config

    def classifier(self, seed: int, *, after_pretext: bool) -> PreTrainedModel:
        """Returns a fresh classifier on the backbone, or on the encoder of the pretext stage.

        Args:
            seed (`int`): Random seed of the head.
            after_pretext (`bool`): Whether to start from the encoder of the pretext stage.
        """
        backbone = self.encoder if after_pretext else self.arguments.backbone
        options = self.task.model_options()
        options["revision"] = None if after_pretext else self.arguments.revision
        return load_classifier(backbone, self.label_names, pooling=self.arguments.pooling, seed=seed, **options)

    def peft_config(self, model: PreTrainedModel, *, masked_lm: bool = False) -> PeftConfig | None:
        """Returns the LoRA settings for a model; `None` where all weights are trained.

        Args:
            model (`PreTrainedModel`): The model that gets the adapter.
            masked_lm (`bool`, defaults to `False`): Whether it is a masked language model and not a classifier.
        """
        if not masked_lm and (given := run_extras().peft_config) is not None:
            return deepcopy(given)
        name = "masked_lm" if masked_lm else self.task.name
        return requested_lora_config(self.arguments, model, name, self.task.peft_task)

    def labels_only(
        self,
        folder: Path,
        title: str,
        labeled: Dataset,
        *,
        seed: int,
        after_pretext: bool,
        overrides: Mapping[str, Any] | None = None,
    ) -> dict[str, SSLTrainer]:
        """Fine-tunes on the labels, after a contrastive stage on the same rows where the preset has one.

        Args:
            folder (`Path`): Folder for checkpoints.
            title (`str`): Title of the progress bars.
            labeled (`Dataset`): Tokenized rows with `labels`.
            seed (`int`): Random seed of the training.
            after_pretext (`bool`): Whether to start from the encoder of the pretext stage.
            overrides (`Mapping[str, Any]`, *optional*): Settings of the contrastive stage that differ from the
                preset's.

        Returns:
            Trainers by the name of their method, in the order of training; `"supervised"` is the last.
        """
        trainers: dict[str, SSLTrainer] = {}
        model = self.classifier(seed, after_pretext=after_pretext)
        peft_config = self.peft_config(model)
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
            model, peft_config = trainers["contrastive"].model, None  # with LoRA it has its adapter now
        trainers["supervised"] = SupervisedTrainer(
            model,
            self.config(SupervisedConfig, folder, preset.supervised, seed=seed),
            train_dataset=labeled,
            processing_class=self.tokenizer,
            peft_config=peft_config,
            title=title,
        )
        trainers["supervised"].train(resume_from_checkpoint=True)
        return trainers

    def teacher(
        self,
        place: Path,
        title: str,
        labeled: Dataset,
        *,
        stream: str,
        after_pretext: bool,
        overrides: Mapping[str, Any] | None = None,
    ) -> PreTrainedModel:
        """Returns a labels-only model with a random seed of its own.

        Args:
            place (`Path`): Folder of `model/`; a model that is already there is not trained again.
            title (`str`): Title of the progress bars.
            labeled (`Dataset`): Tokenized rows with `labels`.
            stream (`str`): Name of the random stream from which the seed is derived.
            after_pretext (`bool`): As in `labels_only`.
            overrides (`Mapping[str, Any]`, *optional*): As in `labels_only`.
        """
        if not (place / "model").exists():
            trainers = self.labels_only(
                place,
                title,
                labeled,
                seed=derive_seed(self.arguments.seed, stream) % 2**31,
                after_pretext=after_pretext,
                overrides=overrides,
            )
            save_checkpoint(trainers["supervised"].model, self.tokenizer, place / "model", self.label_names)
        shutil.rmtree(place / "checkpoints", ignore_errors=True)
        return from_pretrained(place / "model")


def descriptions(trainers: Mapping[str, SSLTrainer]) -> dict[str, dict[str, Any]]:
    """Returns the `description` of each step."""
    return {step: description(trainer) for step, trainer in trainers.items()}


def description(trainer: SSLTrainer) -> dict[str, Any]:
    """Returns the method of a step and its changed settings, for the report and the card.

    The versions of the libraries, which are reported too, determine the defaults.

    Args:
        trainer (`SSLTrainer`): Trainer of the step.
    """
    described = trainer.objective.describe()
    return {name: described[name] for name in ("method", "paper", "citation")} | changed_settings(trainer.args)
