"""The training stages of `fit`: pretext, labels only, self-training. Each runs once and leaves its evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets
from tqdm.auto import tqdm
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hfssl.config.arguments import FitArguments
from hfssl.data.audit import training_manifest
from hfssl.data.splits import SemiSupervisedSplits
from hfssl.data.tokenization import tokenize_dataset
from hfssl.evaluation.cross_fitting import cross_fit, fold_numbers
from hfssl.evaluation.verdict import LABELS_ONLY, judge
from hfssl.methods.pretext.masked_span import MaskedSpanConfig, MaskedSpanTrainer
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.rounds import SelfTraining
from hfssl.models.auto import from_pretrained
from hfssl.models.checkpoints import plain_model, save_checkpoint
from hfssl.models.loading import load_masked_lm, transfer_encoder
from hfssl.pipeline.costs import StageCost, cost_table, plan
from hfssl.pipeline.held_out import CROSS_FIT, Evidence
from hfssl.pipeline.model_factory import ModelMaker, description, descriptions
from hfssl.pipeline.presets import PRETEXT_ON_REQUEST, Preset
from hfssl.pipeline.run_folder import RunFolder
from hfssl.runtime.seeding import numpy_generator
from hfssl.training.config import changed_settings
from hfssl.training.trainer import SSLTrainer

__all__ = ["REFIT", "StageRunner"]

logger = logging.get_logger(__name__)

REFIT = "refit"


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
        wanted = preset.cross_fit if arguments.cross_fit is None else arguments.cross_fit
        self.folds = self._folds(wanted) if wanted and self.rounds else None  # [L] fold of each labeled row
        self.evidence = Evidence(run, self.tokens, tokenizer, self.label_names)
        self.titles = self._titles()

    def _titles(self) -> dict[str, str]:
        names = ["pretext on the raw text"] * self.pretext + ["labels only"]
        names += ["labels only, adapted backbone"] * self.pretext + ["self-training"] * (self.rounds > 0)
        names += ["cross-fitting"] * (self.folds is not None) + ["refit on all labels"] * self.refits
        return {name: f"[{i}/{len(names)}] {name}" for i, name in enumerate(names, start=1)}

    def run(self) -> dict[str, dict[str, Any]]:
        """Runs what is not done yet; returns the record of each stage by name, in the order of the closing table."""
        if not self.arguments.quiet:
            tqdm.write(cost_table(self.costs()))
        records: dict[str, dict[str, Any]] = {}
        if self.pretext:
            self.run_folder.run_once("adapted_backbone", self._adapt_backbone)
        records[LABELS_ONLY] = self.run_folder.run_once(LABELS_ONLY, self._labels_only)
        if self.pretext:
            records["pretext"] = self.run_folder.run_once("pretext", self._labels_only_on_adapted)
            adapting = self.run_folder.done("adapted_backbone")
            records["pretext"] = {
                **records["pretext"],
                "seconds": records["pretext"]["seconds"] + adapting["seconds"],
                "config": adapting["config"] | records["pretext"]["config"],
            }
        if self.rounds:
            records["self_training"] = self.run_folder.run_once("self_training", self._self_training)
        if self.folds is not None:
            self.run_folder.run_once(CROSS_FIT, self._cross_fit)
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
            labels=len(self.tokens["labeled"]),
            held_out=len(self.tokens["validation"]),
            pool=len(self._pool_rows()),
            layers=config.num_hidden_layers,
            pretext=self.pretext,
            rounds=self.rounds,
            refit=self.refits,
            folds=0 if self.folds is None else int(self.folds.max()) + 1,
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
        return self._supervised(folder, LABELS_ONLY, "labels only", adapted=False)

    def _labels_only_on_adapted(self, folder: Path) -> dict[str, Any]:
        return self._supervised(folder, "pretext", "labels only, adapted backbone", adapted=True)

    def _supervised(self, folder: Path, name: str, title: str, *, adapted: bool) -> dict[str, Any]:
        # The same seed with and without pretext: the two differ in the backbone and in nothing else.
        seed = self.make.seed("supervised")
        trainers = self.make.supervised(folder, self.titles[title], self.tokens["labeled"], seed=seed, adapted=adapted)
        return {
            "metrics": self.evidence.keep(folder, trainers["supervised"].model),
            "manifests": [training_manifest(name, self.splits["labeled"], "labeled")],
            "config": descriptions(trainers),
            "curves": _curves(trainers),
        }

    def _self_training(self, folder: Path) -> dict[str, Any]:
        adapted = self._start_from_adapted()
        seed = self.make.seed("self_training")
        labels = len(self.tokens["labeled"])
        rounds = self._rounds(folder, "self-training", self.rounds, labels, seed=seed, adapted=adapted)
        config = rounds.args
        first = self.run_folder.stage("pretext" if adapted else LABELS_ONLY)
        teachers = [from_pretrained(first / "model")]
        teachers += self._teachers(
            folder, "self-training", self.tokens["labeled"], range(1, config.num_teachers), adapted
        )
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
        settings = rounds.describe() | changed_settings(config) | {"adapted_backbone": adapted}
        differing = {f"teacher_{n + 1}": self.preset.overrides(n) for n in range(config.num_teachers)}
        settings |= {name: changes for name, changes in differing.items() if changes}
        return {
            "metrics": self.evidence.keep(folder, rounds.student_),
            "manifests": [
                training_manifest("self_training", self.splits["labeled"], "labeled"),
                training_manifest("self_training", used, "unlabeled"),
            ],
            "config": {"self_training": settings},
            "curves": rounds.curves_,
            "rounds": rounds.rounds_,
            **self.evidence.observations(rounds, pool),
        }

    def _teachers(
        self, folder: Path, title: str, labeled: Dataset, numbers: Iterable[int], adapted: bool
    ) -> list[PreTrainedModel]:
        """Members of a committee of labels-only models: number 0 is like the labels-only stage, the others differ."""
        return [
            self.make.teacher(
                folder / f"teacher-{number}",
                f"{self.titles[title]}, teacher {number + 1}",
                labeled,
                adapted=adapted,
                overrides=self.preset.overrides(number),
            )
            for number in numbers
        ]

    def _pool_rows(self) -> np.ndarray:
        """The rows that self-training looks at, ascending: all, or as many as the preset says, drawn by the seed."""
        count, most = len(self.tokens["unlabeled"]), self.preset.max_pool_rows
        if most is None or count <= most:
            return np.arange(count)
        return np.sort(numpy_generator(self.arguments.seed, "pool").choice(count, size=most, replace=False))

    def _rounds(self, folder: Path, title: str, rounds: int, labels: int, *, seed: int, adapted: bool) -> SelfTraining:
        preset = self.preset.at(labels)
        settings = preset.supervised | preset.self_training | {"rounds": rounds}
        settings |= {"class_prior": self.arguments.class_prior}
        config = self.make.config(SelfTrainingConfig, folder, settings, seed=seed)
        example = self.make.classifier(config.seed, adapted=adapted)
        return SelfTraining(
            lambda seed: self.make.classifier(seed, adapted=adapted),
            config,
            processing_class=self.tokenizer,
            label_names=self.label_names,
            output_dir=folder,
            peft_config=self.make.peft_config(example, "sequence_classification"),
            title=self.titles.get(title, title),
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
            rounds = self._rounds(place, title, self.rounds, len(tokens), seed=self.make.seed(chosen), adapted=adapted)
            teachers = self._teachers(folder, title, tokens, range(rounds.args.num_teachers), adapted)
            model, curves = rounds.refit(teachers, tokens, self.tokens["unlabeled"].select(self._pool_rows()), folder)
            manifests += [{**m, "stage": REFIT} for m in before["manifests"] if m["role"] == "unlabeled"]
            config = before["config"]
        else:
            trainers = self.make.supervised(
                folder, self.titles[title], tokens, seed=self.make.seed("supervised"), adapted=adapted
            )
            model, curves = trainers["supervised"].model, _curves(trainers)
            config = descriptions(trainers)
        metrics = self.evidence.keep(folder, model, ("test",))
        return {"metrics": metrics, "manifests": manifests, "config": config, "curves": curves}

    def _folds(self, wanted: int) -> np.ndarray | None:
        part = self.splits["labeled"]
        groups = np.asarray(part["group"][:]) if "group" in part.column_names else None
        numbers = fold_numbers(np.asarray(part["label"][:]), groups, wanted, seed=self.make.seed(CROSS_FIT))
        if numbers is None:
            logger.warning("A class has a single label, or all of them in one group: there will be no cross-fitting.")
        return numbers

    def _cross_fit(self, folder: Path) -> dict[str, Any]:
        adapted, title = self._start_from_adapted(), self.titles["cross-fitting"]
        pool = self.tokens["unlabeled"].select(self._pool_rows())

        def models(place: Path, fold: int, rows: Dataset) -> dict[str, PreTrainedModel]:
            what = f"{title}, fold {fold + 1} of {self.folds.max() + 1}"
            found = {
                name: self.make.teacher(place / f"{name}-{fold}", what, rows, adapted=name == "pretext")
                for name in (LABELS_ONLY, *["pretext"] * self.pretext)
            }
            seed = self.make.seed(f"{CROSS_FIT}-{fold}")
            rounds = self._rounds(place / "rounds", what, 1, len(rows), seed=seed, adapted=adapted)
            rounds.fit(found["pretext" if adapted else LABELS_ONLY], rows, pool)
            return found | {"self_training": rounds.student_}

        cross_fit(folder, self.tokens["labeled"], self.tokens["proxy"], self.folds, models, self.tokenizer)
        return {
            "manifests": [
                training_manifest(CROSS_FIT, self.splits["labeled"], "labeled"),
                training_manifest(CROSS_FIT, self.splits["unlabeled"].select(self._pool_rows()), "unlabeled"),
            ]
        }

    def _start_from_adapted(self) -> bool:
        """Whether self-training starts from the adapted backbone: only if held-out labels speak for it."""
        if not self.pretext:
            return False
        probs = {name: self.evidence.predictions(name)["validation"] for name in (LABELS_ONLY, "pretext")}
        verdict = judge(probs, self.evidence.known("validation"))
        return verdict.use_unlabeled


def _all_labels(parts: DatasetDict) -> Dataset:
    """Every row with a label that is there to learn from, held-out ones included."""
    columns = parts["labeled"].column_names
    return concatenate_datasets([parts["labeled"], parts["validation"].select_columns(columns)])


def _curves(trainers: Mapping[str, SSLTrainer]) -> list[dict[str, Any]]:
    """The log of fine-tuning, or, where the preset has none, that of the contrastive stage."""
    logs = [trainer.state.log_history for trainer in trainers.values()]
    return logs[-1] or logs[0]


def _other_columns(dataset: Dataset) -> list[str]:
    return [name for name in dataset.column_names if name not in ("text", "text_pair")]
