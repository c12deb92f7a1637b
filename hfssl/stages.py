"""The training stages of `fit`: pretext, labels only, self-training. Each runs once and leaves its evidence."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, concatenate_datasets
from scipy.special import softmax
from tqdm.auto import tqdm
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hfssl.alarms import drifted_shares, lost_classes, novel_rows_left_out, strange_pool
from hfssl.arguments import FitArguments
from hfssl.checkpoints import plain_model, save_checkpoint
from hfssl.configs import MaskedSpanConfig, SelfTrainingConfig, changed_settings
from hfssl.costs import StageCost, cost_table, plan
from hfssl.data.audit import training_manifest
from hfssl.data.splits import SemiSupervisedSplits
from hfssl.data.streams import tokenize_dataset
from hfssl.files import read_arrays, write_arrays
from hfssl.metrics.classification import evaluate_probs
from hfssl.metrics.unlabeled import average_thresholded_confidence
from hfssl.modeling import from_pretrained, load_masked_lm, transfer_encoder
from hfssl.presets import PRETEXT_ON_REQUEST, Preset
from hfssl.rounds import SelfTraining
from hfssl.run_folder import RunFolder
from hfssl.scoring import predict_logits
from hfssl.seeding import numpy_generator
from hfssl.trainer import SSLTrainer
from hfssl.trainers import MaskedSpanTrainer
from hfssl.training import ModelMaker, description, descriptions
from hfssl.verdict import BASELINE, judge

__all__ = ["REFIT", "StageRunner"]

logger = logging.get_logger(__name__)

MEASURED = ("validation", "test")
REFIT, LOGITS = "refit", "logits.npz"
# Below, an estimate that inherits the noise of the held-out accuracy misleads: on 9 labels it said 24% for 62%.
FEWEST_HELD_OUT = 30


class StageRunner:
    """Runs the training stages that the preset and the arguments ask for, each into its folder below `stages/`.

    Args:
        arguments (`FitArguments`): The run's arguments.
        preset (`Preset`): Settings of the stages.
        run (`RunFolder`): Where the evidence goes.
        splits (`SemiSupervisedSplits`): The data.
        tokenizer (`PreTrainedTokenizerBase`): The backbone's tokenizer.
    """

    def __init__(
        self,
        arguments: FitArguments,
        preset: Preset,
        run: RunFolder,
        splits: SemiSupervisedSplits,
        tokenizer: PreTrainedTokenizerBase,
    ):
        self.arguments, self.preset, self.run_folder = arguments, preset, run
        self.splits, self.tokenizer = splits, tokenizer
        self.label_names: list[str] = splits.manifest["label_names"]
        self.tokens = {name: tokenize_dataset(part, tokenizer, arguments.max_length) for name, part in splits.items()}
        self.pretext = preset.pretext is not None if arguments.pretext is None else arguments.pretext
        self.rounds = preset.self_training.get("rounds", 0) if arguments.rounds is None else arguments.rounds
        adapted = run.stage("adapted_backbone") / "encoder"
        self.make = ModelMaker(arguments, preset, tokenizer, self.label_names, adapted)
        if len(splits["unlabeled"]) == 0:
            self.pretext, self.rounds = False, 0
        # Rows in a validation file of the user's own are never learned from.
        may_refit = arguments.validation is None and len(splits["validation"]) > 0
        self.refits = may_refit and (preset.refit if arguments.refit is None else arguments.refit)
        self.titles = self._titles()

    def _titles(self) -> dict[str, str]:
        names = ["pretext on the raw text"] * self.pretext + ["labels only"]
        names += ["labels only, adapted backbone"] * self.pretext + ["self-training"] * (self.rounds > 0)
        names += ["refit on all labels"] * self.refits
        return {name: f"[{i}/{len(names)}] {name}" for i, name in enumerate(names, start=1)}

    def run(self) -> dict[str, dict[str, Any]]:
        """Runs what is not done yet; returns the record of each stage by name, in the order of the closing table."""
        if not self.arguments.quiet:
            tqdm.write(cost_table(self.costs()))
        records: dict[str, dict[str, Any]] = {}
        if self.pretext:
            self.run_folder.run_once("adapted_backbone", self._adapt_backbone)
        records[BASELINE] = self.run_folder.run_once(BASELINE, self._labels_only)
        if self.pretext:
            records["pretext"] = self.run_folder.run_once("pretext", self._labels_only_on_adapted)
            adapting = self.run_folder.done("adapted_backbone")
            records["pretext"] = {
                **records["pretext"],
                "seconds": records["pretext"]["seconds"] + adapting["seconds"],
                "manifests": adapting["manifests"] + records["pretext"]["manifests"],
                "config": adapting["config"] | records["pretext"]["config"],
            }
        if self.rounds:
            records["self_training"] = self.run_folder.run_once("self_training", self._self_training)
        return records

    def costs(self) -> list[StageCost]:
        """What the stages cost, for a look before they start."""
        lengths = {}
        for name in ("labeled", "unlabeled"):
            rows = self.tokens[name]["input_ids"][:]
            lengths[name] = sum(map(len, rows)) / max(1, len(rows))
        config = AutoConfig.from_pretrained(self.arguments.backbone).get_text_config()
        return plan(
            self.preset,
            lengths=lengths,
            pool=len(self._pool_rows()),
            layers=config.num_hidden_layers,
            pretext=self.pretext,
            rounds=self.rounds,
            refit=self.refits,
            max_steps=self.arguments.max_steps,
        )

    def refit(self, chosen: str) -> dict[str, Any]:
        """Trains the chosen approach once more, on all labels; returns the record of that stage.

        The labels that were held out for the verdict and the temperature have done their work. They are a fifth of
        all, and on a few labels a fifth is worth points (as in scikit-learn's searches, `refit=True`).
        """
        return self.run_folder.run_once(REFIT, lambda folder: self._refit(folder, chosen))

    # --- stages ------------------------------------------------------------------------------------------------------

    def _adapt_backbone(self, folder: Path) -> dict[str, Any]:
        """Masked-span training on all training texts, watched on `proxy`, which it never trains on."""
        config = self.make.config(
            MaskedSpanConfig, folder, self.preset.pretext or PRETEXT_ON_REQUEST, seed=self.make.seed("pretext")
        )
        model = load_masked_lm(self.arguments.backbone, seed=config.seed)
        texts = concatenate_datasets(
            [self.splits[name].remove_columns(_other_columns(self.splits[name])) for name in ("labeled", "unlabeled")]
        )
        trainer = MaskedSpanTrainer(
            model,
            config,
            unlabeled_dataset=texts,
            eval_dataset=self.splits["proxy"] if len(self.splits["proxy"]) else None,
            processing_class=self.tokenizer,
            peft_config=self.make.peft_config(model, "masked_lm"),
            title=self.titles["pretext on the raw text"],
        )
        trainer.train(resume_from_checkpoint=True)
        # Saved as a headless encoder, the shape of the backbone itself, so that every later stage, LoRA included, just
        # starts from another folder. What the masked LM lacks (a pooler) stays as it was in the backbone.
        encoder = self.make.classifier(config.seed, adapted=False).base_model
        transfer_encoder(plain_model(trainer.model), encoder)
        save_checkpoint(encoder, self.tokenizer, folder / "encoder")
        return {
            "manifests": [training_manifest("pretext", texts, "unlabeled")],
            "config": {"pretext": description(trainer)},
            "curves": trainer.state.log_history,
        }

    def _labels_only(self, folder: Path) -> dict[str, Any]:
        return self._supervised(folder, BASELINE, "labels only", adapted=False)

    def _labels_only_on_adapted(self, folder: Path) -> dict[str, Any]:
        return self._supervised(folder, "pretext", "labels only, adapted backbone", adapted=True)

    def _supervised(self, folder: Path, name: str, title: str, *, adapted: bool) -> dict[str, Any]:
        # The same seed with and without pretext: the two differ in the backbone and in nothing else.
        seed = self.make.seed("supervised")
        trainers = self.make.supervised(folder, self.titles[title], self.tokens["labeled"], seed=seed, adapted=adapted)
        return {
            "metrics": self._finish(folder, trainers["supervised"].model),
            "manifests": [training_manifest(name, self.splits["labeled"], "labeled")],
            "config": descriptions(trainers),
            "curves": _curves(trainers),
        }

    def _self_training(self, folder: Path) -> dict[str, Any]:
        adapted = self._start_from_adapted()
        seed = self.make.seed("self_training")
        rounds = self._rounds(folder, "self-training", self.rounds, seed=seed, adapted=adapted)
        config = rounds.args
        first = self.run_folder.stage("pretext" if adapted else BASELINE)
        teachers = [from_pretrained(first / "model")]
        rates = itertools.cycle(self.preset.teacher_rates)
        teachers += [
            self.make.teacher(
                folder / f"teacher-{number}",
                f"{self.titles['self-training']}, teacher {number + 1}",
                self.tokens["labeled"],
                adapted=adapted,
                rate=rate,
            )
            for number, rate in zip(range(1, config.teachers), rates, strict=False)
        ]
        chosen = self._pool_rows()
        pool = self.tokens["unlabeled"].select(chosen)
        rounds.fit(
            teachers,
            self.tokens["labeled"],
            pool,
            validation=self.tokens["validation"],
            hidden_labels=np.asarray(pool["hidden_label"][:]),
        )
        used = self.splits["unlabeled"].select(chosen[rounds.labeled_iter_ >= 0])
        return {
            "metrics": self._finish(folder, rounds.student_),
            "manifests": [
                training_manifest("self_training", self.splits["labeled"], "labeled"),
                training_manifest("self_training", used, "unlabeled"),
            ],
            "config": {"self_training": rounds.describe() | changed_settings(config) | {"adapted_backbone": adapted}},
            "curves": rounds.curves_,
            "rounds": rounds.rounds_,
            **self._observations(rounds),
        }

    def _pool_rows(self) -> np.ndarray:
        """The rows that self-training looks at, ascending: all, or as many as the preset says, drawn by the seed."""
        count, most = len(self.tokens["unlabeled"]), self.preset.most_pool_rows
        if most is None or count <= most:
            return np.arange(count)
        return np.sort(numpy_generator(self.arguments.seed, "pool").choice(count, size=most, replace=False))

    def _rounds(self, folder: Path, title: str, rounds: int, *, seed: int, adapted: bool) -> SelfTraining:
        settings = self.preset.supervised | self.preset.self_training | {"rounds": rounds}
        config = self.make.config(SelfTrainingConfig, folder, settings, seed=seed)
        example = self.make.classifier(config.seed, adapted=adapted)
        return SelfTraining(
            lambda seed: self.make.classifier(seed, adapted=adapted),
            config,
            processing_class=self.tokenizer,
            label_names=self.label_names,
            output_dir=folder,
            peft_config=self.make.peft_config(example, "sequence_classification"),
            title=self.titles[title],
        )

    def _refit(self, folder: Path, chosen: str) -> dict[str, Any]:
        """Labels only, or the last student, once more; see `refit`."""
        rows, tokens = (_all_labels(parts) for parts in (self.splits, self.tokens))
        title = "refit on all labels"
        manifests = [training_manifest(REFIT, rows, "labeled")]
        before = self.run_folder.done(chosen)
        adapted = chosen == "pretext" or before["config"].get(chosen, {}).get("adapted_backbone", False)
        if any(record["selected"] for record in before.get("rounds", [])):
            place = self.run_folder.stage(chosen)
            rounds = self._rounds(place, title, self.rounds, seed=self.make.seed(chosen), adapted=adapted)
            teacher = self.make.teacher(folder / "teacher", f"{self.titles[title]}, teacher", tokens, adapted=adapted)
            model, curves = rounds.refit(teacher, tokens, self.tokens["unlabeled"].select(self._pool_rows()), folder)
            manifests += [{**m, "stage": REFIT} for m in before["manifests"] if m["role"] == "unlabeled"]
            config = before["config"]
        else:
            trainers = self.make.supervised(
                folder, self.titles[title], tokens, seed=self.make.seed("supervised"), adapted=adapted
            )
            model, curves = trainers["supervised"].model, _curves(trainers)
            config = descriptions(trainers)
        metrics = self._finish(folder, model, ("test",))
        return {"metrics": metrics, "manifests": manifests, "config": config, "curves": curves}

    def _start_from_adapted(self) -> bool:
        """Whether self-training starts from the adapted backbone: unless held-out labels speak against it."""
        if not self.pretext:
            return False
        probs = {name: self.predictions(name)["validation"] for name in (BASELINE, "pretext")}
        verdict = judge(probs, np.asarray(self.splits["validation"]["label"]), seed=self.arguments.seed)
        return verdict.use_unlabeled

    def _observations(self, rounds: SelfTraining) -> dict[str, list[str]]:
        """Alarms, which speak against the student, and notes, which a reader of the verdict should know anyhow."""
        labels = np.asarray(self.splits["labeled"]["label"])
        alarms, notes = lost_classes(rounds.transduction_, labels, self.label_names), []
        if len(self.tokens["proxy"]):
            student = softmax(predict_logits(rounds.student_, self.tokens["proxy"], self.tokenizer), axis=-1)
            alarms += drifted_shares(student, rounds.class_shares_)
            notes += self._estimates(student, rounds.args.device)
        if (around := rounds.neighborhood_) is not None:
            filtered = rounds.args.filter_novel
            alarms += strange_pool(around.novel, filtered=filtered and not around.novel.all())
            notes += novel_rows_left_out(around.novel) if filtered else []
        return {"alarms": alarms, "notes": notes}

    def _estimates(self, student_probs: np.ndarray, device: torch.device) -> list[str]:
        """What labels only and the student would get right of `proxy`, whose labels are not looked at."""
        labels = np.asarray(self.tokens["validation"]["labels"][:])
        if len(labels) < FEWEST_HELD_OUT:
            return []
        baseline = predict_logits(
            from_pretrained(self.run_folder.stage(BASELINE) / "model"),
            self.tokens["proxy"],
            self.tokenizer,
            device=device,
        )
        before, after = (
            100 * average_thresholded_confidence(self.predictions(stage)["validation"], labels, probs)
            for stage, probs in ((BASELINE, softmax(baseline, axis=-1)), ("self_training", student_probs))
        )
        return [
            f"Accuracy on {len(student_probs):,} set-aside texts, estimated without their labels (average thresholded "
            f"confidence): labels only {before:.0f}%, self-trained {after:.0f}%; no surer than the {len(labels)} "
            "held-out labels that it rests on."
        ]

    # --- evidence ----------------------------------------------------------------------------------------------------

    def _finish(
        self, folder: Path, model: PreTrainedModel, splits: Sequence[str] = MEASURED
    ) -> dict[str, dict[str, float] | None]:
        """Saves the model and its logits on the held-out splits; returns their metrics, `None` for what is no more."""
        metrics: dict[str, dict[str, float] | None] = dict.fromkeys(MEASURED)
        logits = {}
        for name in splits:
            part = self.tokens[name]
            labels = np.asarray(part["labels"], dtype=np.int64)
            logits[name] = (
                predict_logits(model, part, self.tokenizer)
                if len(part)
                else np.zeros((0, len(self.label_names)), np.float32)
            )
            metrics[name] = evaluate_probs(softmax(logits[name], axis=-1), labels) if len(part) else None
        write_arrays(folder / LOGITS, logits)
        save_checkpoint(model, self.tokenizer, folder / "model", self.label_names)
        return metrics

    def logits(self, stage: str) -> dict[str, np.ndarray]:
        """Split name -> `[N, K]` logits of a finished stage."""
        return read_arrays(self.run_folder.stage(stage) / LOGITS)

    def predictions(self, stage: str) -> dict[str, np.ndarray]:
        """Split name -> `[N, K]` probabilities of a finished stage."""
        return {name: softmax(values, axis=-1) for name, values in self.logits(stage).items()}

    def alarms(self) -> list[str]:
        """What self-training raised against its own result."""
        return (self.run_folder.done("self_training") or {}).get("alarms", [])

    def notes(self) -> list[str]:
        """What self-training found remarkable."""
        return (self.run_folder.done("self_training") or {}).get("notes", [])


def _all_labels(parts: DatasetDict) -> Dataset:
    """Every row with a label that is there to learn from, held-out ones included."""
    columns = parts["labeled"].column_names
    return concatenate_datasets([parts["labeled"], parts["validation"].select_columns(columns)])


def _curves(trainers: Mapping[str, SSLTrainer]) -> list[dict[str, Any]]:
    """The log of fine-tuning, or, where the preset has none, that of the warm start."""
    logs = [trainer.state.log_history for trainer in trainers.values()]
    return logs[-1] or logs[0]


def _other_columns(dataset: Dataset) -> list[str]:
    return [name for name in dataset.column_names if name not in ("text", "text_pair")]
