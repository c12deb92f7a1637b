"""What `recipes/train.py` does: reads a recipe, trains its one method, measures, saves."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, concatenate_datasets
from peft import PeftConfig
from scipy.special import softmax
from transformers import HfArgumentParser, PreTrainedModel, PreTrainedTokenizerBase

from hfssl.config.arguments import AdapterArguments, DataArguments, ModelArguments
from hfssl.config.methods import METHODS
from hfssl.config.parsing import parse, read_yaml
from hfssl.data.prepare import make_splits
from hfssl.data.splits import SemiSupervisedSplits
from hfssl.data.tokenization import tokenize_dataset
from hfssl.deploy.push import files_below
from hfssl.errors import ConfigurationError, ModelError, near_matches
from hfssl.functional.class_priors import given_prior
from hfssl.hub.upload import commit, make_repository
from hfssl.inference.scoring import predict_logits
from hfssl.methods.contrastive import ContrastiveTrainer
from hfssl.methods.pretext.masked_span import MaskedSpanTrainer
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.rounds import SelfTraining
from hfssl.methods.supervised import SupervisedTrainer
from hfssl.metrics.classification import evaluate_probs
from hfssl.models.adapters import requested_lora_config
from hfssl.models.backbones import load_tokenizer
from hfssl.models.checkpoints import plain_model, save_checkpoint
from hfssl.models.loading import load_classifier, load_masked_lm, transfer_encoder
from hfssl.reporting.trainer_card import TrainedModel, training_card
from hfssl.runtime.distributed import failing_together
from hfssl.runtime.files import write_json
from hfssl.training.config import SSLConfig, changed_settings

__all__ = ["Recipe", "parse_recipe", "train_recipe"]


class Recipe(NamedTuple):
    """One method and everything that its YAML file and the flags set."""

    method: str
    data: DataArguments
    model: ModelArguments
    adapter: AdapterArguments
    config: SSLConfig


def parse_recipe(argv: Sequence[str]) -> Recipe:
    """Reads `--config FILE`, `--method NAME` (over the file's `method`) and the options of that method.

    Raises:
        ConfigurationError: every unknown key, bad value and missing value at once.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", nargs="?")
    first.add_argument("--method", nargs="?")
    known, _ = first.parse_known_args(list(argv))
    method = known.method or (read_yaml(known.config).get("method") if known.config else None)
    if method not in METHODS:
        got = "nothing" if method is None else f"'{method}'"
        hint = near_matches(str(method), list(METHODS))
        raise ConfigurationError(
            f"method: expected one of {', '.join(METHODS)}; got {got}. Give it in the YAML file or by --method.{hint}"
        )
    kinds = [DataArguments, ModelArguments, AdapterArguments, METHODS[method].config_class]
    parser = HfArgumentParser(kinds, allow_abbrev=False)
    parser.add_argument("--method", choices=list(METHODS), help="The method; its options are among those below.")
    return Recipe(method, *parse(kinds, argv, parser=parser, ignore=["method"]))


def train_recipe(recipe: Recipe) -> dict[str, Any]:
    """Trains, measures and saves; returns the content of `results.json`.

    `output_dir` gets `splits/`, `model/` (an adapter with LoRA) with its tokenizer, and `results.json`.

    Raises:
        ConfigurationError: `output_dir` holds a run and `resume_from_checkpoint` is not given.
        DataError, ModelError, TrainingError: see `hfssl.fit`.
    """
    config, folder = recipe.config, Path(recipe.config.output_dir)
    resume = config.resume_from_checkpoint is not None
    if config.process_index == 0:
        if not resume and folder.is_dir() and any(folder.iterdir()):
            raise ConfigurationError(
                f"output_dir '{folder}' already holds a run; add --resume_from_checkpoint true to go on with it, "
                "delete it, or choose another folder."
            )
    splits = make_splits(recipe.data, config.seed)
    if isinstance(config, SelfTrainingConfig) and config.class_prior is not None:
        given_prior(config.class_prior, splits.manifest["label_names"])
    job = _Job(recipe, splits)
    if config.push_to_hub:
        job.make_repository()
    if config.process_index == 0 and not (folder / "splits").exists():
        splits.save(folder / "splits")  # the first file of the run: nothing is left behind when the input is bad
    outcome = _RUN[recipe.method](job)
    results = {
        "method": recipe.method,
        "seed": config.seed,
        "counts": splits.manifest["counts"],
        "warnings": splits.manifest["warnings"],
        **outcome,
    }
    if config.process_index == 0:
        write_json(folder / "results.json", results)
        if config.push_to_hub:
            _push(job, results)
    return results


def _push(job: _Job, results: dict[str, Any]) -> None:
    """What lies in `model/`, with card, results and the manifest of the splits, in one commit; no texts."""
    recipe, config, folder = job.recipe, job.config, Path(job.config.output_dir)
    method = METHODS[recipe.method]
    objective, classifies = method.trainer_class.objective_class, method.product == "classifier"
    trained = TrainedModel(
        path=job.repo_id,
        trainer=method.trainer_class.__name__,
        base_model=recipe.model.backbone,
        product="classifier" if classifies else "encoder",
        described={"paper": objective.paper, "citation": objective.citation, **changed_settings(config)},
        label_names=job.label_names if classifies else (),
        adapter=(folder / "model" / "adapter_config.json").is_file(),
        pooling=recipe.model.pooling,
        labeled=len(job.splits["labeled"]),
        unlabeled=len(job.splits["unlabeled"]) if recipe.method in ("masked_span", "self_training") else 0,
        seed=config.seed,
        metrics={
            name: {**metrics, "rows": len(job.splits[name])}
            for name, metrics in results["metrics"].items()
            if classifies and metrics
        },
    )
    files: dict[str, Path | bytes] = {**files_below(folder / "model"), "results.json": folder / "results.json"}
    files |= {"splits/manifest.json": folder / "splits" / "manifest.json"}
    commit(
        {**files, "README.md": training_card(trained).encode()},
        job.repo_id,
        message="End of training",
        revision=config.hub_revision,
        token=config.hub_token,
    )


@dataclass
class _Job:
    """What the methods below share: the recipe, its data, and how models are made and measured."""

    recipe: Recipe
    splits: SemiSupervisedSplits

    def __post_init__(self):
        self.config = self.recipe.config
        # Where the trainer's own model is not yet what the recipe makes, only that is pushed, in the end.
        own = self.recipe.method == "supervised"
        self.training = self.config if own else replace(self.config, push_to_hub=False)
        self.repo_id = ""
        self.label_names: list[str] = self.splits.manifest["label_names"]
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(
            self.recipe.model.backbone, max_length=self.config.max_length
        )
        self.tokens = {
            name: tokenize_dataset(part, self.tokenizer, self.config.max_length) for name, part in self.splits.items()
        }

    def classifier(self, seed: int) -> PreTrainedModel:
        """A fresh classifier on the recipe's backbone."""
        model = self.recipe.model
        return load_classifier(model.backbone, self.label_names, pooling=model.pooling, seed=seed)

    def peft_config(self, model: PreTrainedModel, task: str) -> PeftConfig | None:
        """The recipe's adapter settings for `model`."""
        return requested_lora_config(self.recipe.adapter, model, task)

    def make_repository(self) -> None:
        """Now: a token that does not do shall cost nobody a training. All ranks come here."""
        config = self.config
        with failing_together(ModelError):
            if config.process_index == 0:
                name = config.hub_model_id or Path(config.output_dir).resolve().name
                self.repo_id = make_repository(name, private=config.hub_private_repo, token=config.hub_token)

    @property
    def resume(self) -> str | bool:
        """`--resume_from_checkpoint true` finds the newest complete checkpoint; a folder names one."""
        given = self.config.resume_from_checkpoint
        return True if given is not None and given.lower() == "true" else given or False

    def save(self, model: PreTrainedModel, label_names: list[str] | None = None) -> None:
        """Writes `model/`, from one rank."""
        if self.config.process_index == 0:
            save_checkpoint(model, self.tokenizer, Path(self.config.output_dir) / "model", label_names)

    def measure(self, model: PreTrainedModel) -> dict[str, Any]:
        """Metrics on `validation` and `test`; `None` for a part without rows."""
        metrics: dict[str, dict[str, float] | None] = {}
        for name in ("validation", "test"):
            part = self.tokens[name]
            labels = np.asarray(part["labels"], dtype=np.int64)
            probs = softmax(predict_logits(model, part, self.tokenizer), axis=-1) if len(part) else None
            metrics[name] = None if probs is None else evaluate_probs(probs, labels)
        return metrics


def _supervised(job: _Job) -> dict[str, Any]:
    model = job.classifier(job.config.seed)
    trainer = SupervisedTrainer(
        model,
        job.training,
        train_dataset=job.tokens["labeled"],
        eval_dataset=job.tokens["validation"] if len(job.tokens["validation"]) else None,
        processing_class=job.tokenizer,
        peft_config=job.peft_config(model, "sequence_classification"),
        title="labels only",
    )
    trainer.train(resume_from_checkpoint=job.resume)
    job.save(trainer.model, job.label_names)
    return {"metrics": job.measure(trainer.model)}


def _masked_span(job: _Job) -> dict[str, Any]:
    """Saves the adapted encoder without a head: a backbone like the one it started from, for `--backbone`."""
    model = load_masked_lm(job.recipe.model.backbone, seed=job.config.seed)
    trainer = MaskedSpanTrainer(
        model,
        job.training,
        unlabeled_dataset=concatenate_datasets([_texts(job.splits[name]) for name in ("labeled", "unlabeled")]),
        eval_dataset=_texts(job.splits["proxy"]) if len(job.splits["proxy"]) else None,
        processing_class=job.tokenizer,
        peft_config=job.peft_config(model, "masked_lm"),
        title="pretext",
    )
    trainer.train(resume_from_checkpoint=job.resume)
    encoder = job.classifier(job.config.seed).base_model  # what the masked LM lacks (a pooler) stays the backbone's
    transfer_encoder(plain_model(trainer.model), encoder)
    job.save(encoder)
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    return {"metrics": {"proxy": {"loss": min(losses)} if losses else None}}


def _self_training(job: _Job) -> dict[str, Any]:
    """A teacher on the labels alone, by the same settings, and then the rounds."""
    config, folder = job.training, Path(job.config.output_dir)
    model = job.classifier(config.seed)
    peft_config = job.peft_config(model, "sequence_classification")
    teacher = SupervisedTrainer(
        model,
        replace(config, output_dir=str(folder / "teacher")),
        train_dataset=job.tokens["labeled"],
        processing_class=job.tokenizer,
        peft_config=peft_config,
        title="teacher",
    )
    teacher.train(resume_from_checkpoint=True)
    rounds = SelfTraining(
        job.classifier,
        config,
        processing_class=job.tokenizer,
        label_names=job.label_names,
        output_dir=folder / "rounds",
        peft_config=peft_config,
    )
    pool = job.tokens["unlabeled"]
    rounds.fit(
        teacher.model.eval(),
        job.tokens["labeled"],
        pool,
        validation=job.tokens["validation"],
        hidden_labels=np.asarray(pool["hidden_label"][:]),
    )
    job.save(rounds.student_, job.label_names)
    return {
        "metrics": job.measure(rounds.student_),
        "teacher": job.measure(teacher.model),
        "rounds": rounds.rounds_,
        "termination_condition": rounds.termination_condition_,
    }


def _contrastive(job: _Job) -> dict[str, Any]:
    """Saves the encoder without a head, as `_masked_span` does: a backbone for `--backbone`."""
    model = job.classifier(job.config.seed)
    trainer = ContrastiveTrainer(
        model,
        job.training,
        train_dataset=job.tokens["labeled"],
        processing_class=job.tokenizer,
        peft_config=job.peft_config(model, "sequence_classification"),
        title="contrastive contrastive stage",
    )
    trainer.train(resume_from_checkpoint=job.resume)
    job.save(plain_model(trainer.model).base_model)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"metrics": {"labeled": {"loss": losses[-1]} if losses else None}}


def _texts(dataset: Dataset) -> Dataset:
    """The raw text alone: neither labels nor hidden labels reach the pretext."""
    return dataset.remove_columns([name for name in dataset.column_names if name not in ("text", "text_pair")])


_RUN: dict[str, Callable[[_Job], dict[str, Any]]] = {
    "supervised": _supervised,
    "masked_span": _masked_span,
    "self_training": _self_training,
    "contrastive": _contrastive,
}
