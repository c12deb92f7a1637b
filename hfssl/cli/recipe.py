"""Recipes: `recipes/train.py` reads a recipe, trains its one method, measures the model and saves it."""

from __future__ import annotations

from argparse import Action, ArgumentDefaultsHelpFormatter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset, concatenate_datasets
from peft import PeftConfig
from transformers import HfArgumentParser, PreTrainedModel, PreTrainedTokenizerBase

from hfssl.cli.recipe_folder import begin_recipe_folder, check_recipe_folder
from hfssl.config.arguments import AdapterArguments, DataArguments, ModelArguments
from hfssl.config.methods import METHODS, Method, resolve
from hfssl.config.parsing import early_value, parse
from hfssl.data.prepare import make_splits
from hfssl.data.splits import SemiSupervisedSplits
from hfssl.deploy.push import files_below
from hfssl.errors import ConfigurationError, ModelError, near_matches
from hfssl.hub.upload import commit, make_repository
from hfssl.inference.scoring import predict_logits
from hfssl.methods.jobs import TrainedModels, TrainingJob
from hfssl.models.adapters import requested_lora_config
from hfssl.models.backbones import load_tokenizer
from hfssl.models.checkpoints import plain_model, save_checkpoint
from hfssl.models.loading import load_classifier, load_masked_lm, transfer_encoder
from hfssl.reporting.trainer_card import TrainedModel, training_card
from hfssl.runtime.distributed import failing_together
from hfssl.runtime.files import write_json
from hfssl.tasks.registry import get_task
from hfssl.training.config import SSLConfig, changed_settings

__all__ = ["Recipe", "parse_recipe", "train_recipe"]


class Recipe(NamedTuple):
    """Holds one method and all settings of its YAML file and the flags."""

    method: str
    data: DataArguments
    model: ModelArguments
    adapter: AdapterArguments
    config: SSLConfig


def parse_recipe(argv: Sequence[str]) -> Recipe:
    """Reads `--config FILE`, `--method NAME` (which overrides the file's `method`) and the options of that method.

    Args:
        argv (`Sequence[str]`): Words of the command line.

    Raises:
        ConfigurationError: An unknown key, a bad value or a missing value; the error lists all of them.
    """
    method = early_value(argv, "method")
    if method not in METHODS:
        got = "nothing" if method is None else f"'{method}'"
        hint = near_matches(str(method), list(METHODS))
        raise ConfigurationError(
            f"method: expected one of {', '.join(METHODS)}; got {got}. Give it in the YAML file or by --method.{hint}"
        )
    kinds = [DataArguments, ModelArguments, AdapterArguments, METHODS[method].config_class]
    parser = HfArgumentParser(kinds, allow_abbrev=False, formatter_class=_DefaultsOnce)
    parser.add_argument("--method", choices=list(METHODS), help="Method; this list holds its options.")
    return Recipe(method, *parse(kinds, argv, parser=parser, ignore=["method"]))


def train_recipe(recipe: Recipe) -> dict[str, Any]:
    """Trains, measures and saves; returns the content of `results.json`.

    `output_dir` gets `splits/`, `model/` (an adapter with LoRA) with its tokenizer, and `results.json`.

    Args:
        recipe (`Recipe`): Method and settings.

    Raises:
        ConfigurationError: `output_dir` holds a run and `resume_from_checkpoint` is not given.
        DataError, ModelError, TrainingError: See `hfssl.fit`.
    """
    config, folder = recipe.config, Path(recipe.config.output_dir)
    resume = config.resume_from_checkpoint is not None
    if config.process_index == 0:
        check_recipe_folder(recipe, folder, resume=resume)
    row = METHODS[recipe.method]
    for path in (row.trainer, row.driver):
        if path is not None:
            resolve(path)  # a wrong import path leaves nothing behind
    task = get_task(config.task)
    task.require_method(recipe.method, {name: row.tasks for name, row in METHODS.items()})
    splits = make_splits(recipe.data, config.seed, label_column=task.label_column)
    config.check_classes(splits.manifest["label_names"])
    run = _Run(recipe, splits)
    if config.push_to_hub:
        run.make_repository()
    if config.process_index == 0 and not (folder / "splits").exists():
        begin_recipe_folder(recipe, folder, splits)  # only now: nothing is left behind when the input is bad
    outcome = run.train()
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
            _push(run, results)
    return results


def _push(run: _Run, results: dict[str, Any]) -> None:
    """Pushes the files of `model/`, with card, results and the manifest of the splits, in one commit; no texts."""
    recipe, config, method, folder = run.recipe, run.config, run.method, Path(run.config.output_dir)
    objective, classifies = method.trainer_class.objective_class, method.product == "classifier"
    trained = TrainedModel(
        path=run.repo_id,
        trainer=method.trainer_class.__name__,
        base_model=recipe.model.backbone,
        product="classifier" if classifies else "encoder",
        described={"paper": objective.paper, "citation": objective.citation, **changed_settings(config)},
        label_names=run.label_names if classifies else (),
        adapter=(folder / "model" / "adapter_config.json").is_file(),
        pooling=recipe.model.pooling,
        labeled=len(run.splits["labeled"]),
        unlabeled=len(run.splits["unlabeled"]) if "unlabeled" in method.streams else 0,
        seed=config.seed,
        task=run.task.facts(),
        metrics={
            name: {**metrics, "rows": len(run.splits[name])}
            for name, metrics in results["metrics"].items()
            if classifies and metrics
        },
    )
    files: dict[str, Path | bytes] = {**files_below(folder / "model"), "results.json": folder / "results.json"}
    files |= {"splits/manifest.json": folder / "splits" / "manifest.json"}
    commit(
        {**files, "README.md": training_card(trained).encode()},
        run.repo_id,
        message="End of training",
        revision=config.hub_revision,
        token=config.hub_token,
    )


class _DefaultsOnce(ArgumentDefaultsHelpFormatter):
    """Adds an option's default to its help text, unless there is none or the text names it."""

    def _get_help_string(self, action: Action) -> str | None:
        named = action.default is None or "default" in (action.help or "").lower()
        return action.help if named else super()._get_help_string(action)


class _Run:
    """Runs one method: holds the recipe and its data, and makes, trains, saves and measures models.

    All that depends on the method is in its row of `METHODS`: the product defines the kind of the model and the part
    of it that is saved, the streams define the rows that are read, and the driver trains where one trainer is not
    enough.
    """

    def __init__(self, recipe: Recipe, splits: SemiSupervisedSplits):
        self.recipe, self.splits, self.config = recipe, splits, recipe.config
        self.method: Method = METHODS[recipe.method]
        self.task = get_task(recipe.config.task)
        # Where the trainer's own model is not the recipe's product, only the product is pushed, at the end.
        final = self.method.product == "classifier" and self.method.driver is None
        self.training = self.config if final else replace(self.config, push_to_hub=False)
        self.repo_id = ""
        self.label_names: list[str] = splits.manifest["label_names"]
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(
            recipe.model.backbone, max_length=self.config.max_length, revision=recipe.model.revision
        )
        self.tokens = {
            name: self.task.encode(part, self.tokenizer, self.config.max_length) for name, part in splits.items()
        }

    def make_repository(self) -> None:
        """Makes the repository before training, so that a token without write access fails early. Collective."""
        config = self.config
        with failing_together(ModelError):
            if config.process_index == 0:
                name = config.hub_model_id or Path(config.output_dir).resolve().name
                self.repo_id = make_repository(name, private=config.hub_private_repo, token=config.hub_token)

    def train(self) -> dict[str, Any]:
        """Trains, saves `model/` and measures; returns the method's part of `results.json`."""
        if self.method.driver is None:
            return self._train_once()
        job = TrainingJob(
            make_model=self._classifier,
            make_peft_config=self._peft_config,
            args=self.training,
            processing_class=self.tokenizer,
            label_names=self.label_names,
            tokens=self.tokens,
        )
        trained: TrainedModels = resolve(self.method.driver)(job)
        self._save(trained.model)
        more = {name: self._measure(model) for name, model in trained.more_models.items()}
        return {"metrics": self._measure(trained.model), **more, **trained.results}

    def _train_once(self) -> dict[str, Any]:
        masked = self.method.product == "masked_lm"
        seed, backbone = self.config.seed, self.recipe.model.backbone
        model = (
            load_masked_lm(backbone, seed=seed, revision=self.recipe.model.revision)
            if masked
            else self._classifier(seed)
        )
        trainer = self.method.trainer_class(
            model,
            self.training,
            **self._datasets(),
            processing_class=self.tokenizer,
            peft_config=self._peft_config(model),
            title=self.recipe.method.replace("_", " "),
        )
        given = self.config.resume_from_checkpoint  # "true" finds the newest complete checkpoint; a folder names one
        trainer.train(resume_from_checkpoint=True if given and given.lower() == "true" else given or False)
        self._save(trainer.model)
        if self.method.product == "classifier":
            return {"metrics": self._measure(trainer.model)}
        return {"metrics": _losses(trainer.state.log_history, *self.method.streams)}

    def _datasets(self) -> dict[str, Dataset | None]:
        """Returns the trainer's datasets: the streams that the method reads, and rows to evaluate on.

        A method without labels learns from the texts of all training rows and is evaluated on those that were set
        aside.
        """
        streams, datasets = self.method.streams, {}
        views = self.recipe.data.view_column_names()
        if "labeled" in streams:
            datasets["train_dataset"] = self.tokens["labeled"]
        if "unlabeled" in streams:
            names = ["unlabeled"] if "labeled" in streams else ["labeled", "unlabeled"]
            datasets["unlabeled_dataset"] = concatenate_datasets([_texts(self.splits[name], views) for name in names])
        held_out = None
        if self.method.product == "classifier":
            held_out = self.tokens["validation"]
        elif "labeled" not in streams:
            held_out = _texts(self.splits["proxy"])
        return datasets | {"eval_dataset": held_out if held_out is not None and len(held_out) else None}

    def _classifier(self, seed: int) -> PreTrainedModel:
        """Returns a fresh classifier on the recipe's backbone."""
        model = self.recipe.model
        options = self.task.model_options()
        options["revision"] = model.revision
        return load_classifier(model.backbone, self.label_names, pooling=model.pooling, seed=seed, **options)

    def _peft_config(self, model: PreTrainedModel) -> PeftConfig | None:
        """Returns the recipe's adapter settings for `model`."""
        task = "masked_lm" if self.method.product == "masked_lm" else self.task.name
        return requested_lora_config(self.recipe.adapter, model, task, self.task.peft_task)

    def _save(self, model: PreTrainedModel) -> None:
        """Writes `model/`, on the first rank: the classifier, or the encoder without a head, for `--backbone`."""
        label_names = self.label_names if self.method.product == "classifier" else None
        if self.method.product == "encoder":
            model = plain_model(model).base_model
        elif self.method.product == "masked_lm":
            # Parts that the masked LM lacks (a pooler) are those of the backbone.
            encoder = self._classifier(self.config.seed).base_model
            transfer_encoder(plain_model(model), encoder)
            model = encoder
        if self.config.process_index == 0:
            save_checkpoint(model, self.tokenizer, Path(self.config.output_dir) / "model", label_names)

    def _measure(self, model: PreTrainedModel) -> dict[str, Any]:
        """Returns the metrics on `validation` and `test`; `None` for a part without rows."""
        metrics: dict[str, dict[str, float] | None] = {}
        for name in ("validation", "test"):
            part = self.tokens[name]
            probs = self.task.probs(predict_logits(model, part, self.tokenizer)) if len(part) else None
            metrics[name] = None if probs is None else self.task.evaluate(probs, self.task.label_array(part))
        return metrics


def _texts(dataset: Dataset, views: Sequence[str] = ()) -> Dataset:
    """Returns the raw texts alone, with those of views: neither labels nor hidden labels reach the trainer."""
    kept = ("text", "text_pair", *views)
    return dataset.remove_columns([name for name in dataset.column_names if name not in kept])


def _losses(history: list[dict[str, float]], *streams: str) -> dict[str, dict[str, float]]:
    """Returns the lowest loss on `proxy`, the rows set aside; without one, the last logged loss of training."""
    held_out = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    if held_out:
        return {"proxy": {"loss": min(held_out)}}
    training = [entry["loss"] for entry in history if "loss" in entry]
    return {name: {"loss": training[-1]} for name in streams if training}
