"""What the stages of `fit` leave behind, and what a verdict on them may rest on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from scipy.special import softmax
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.evaluation.alarms import drifted_class_prior, lost_classes, ood_pool, ood_rows_left_out, unlearned_labels
from hfssl.evaluation.cross_fitting import CrossFit
from hfssl.evaluation.verdict import LABELS_ONLY, stage_name
from hfssl.inference.scoring import predict_logits
from hfssl.methods.self_training.rounds import SelfTraining
from hfssl.metrics.accuracy_without_labels import average_thresholded_confidence
from hfssl.metrics.classification import evaluate_probs
from hfssl.metrics.significance import paired_gain
from hfssl.models.auto import from_pretrained
from hfssl.models.checkpoints import save_checkpoint
from hfssl.pipeline.run_folder import RunFolder
from hfssl.runtime.files import read_arrays, write_arrays
from hfssl.runtime.seeding import numpy_generator

__all__ = ["CROSS_FIT", "Evidence"]

CROSS_FIT, LOGITS = "cross_fit", "logits.npz"
MEASURED = ("validation", "test")
# Below, an estimate that inherits the noise of the held-out accuracy misleads: on 9 labels it said 24% for 62%.
MIN_HELD_OUT = 30
LOOKED_AT = 500  # rows of the pool whose labels the student is asked for


class Evidence:
    """Keeps what finished stages say of the held-out rows, and finds it again.

    Args:
        run (`RunFolder`): Where the stages lie.
        tokens (`dict[str, Dataset]`): The parts of the split, tokenized.
        tokenizer (`PreTrainedTokenizerBase`): Pads the batches.
        label_names (`list[str]`): K names.
    """

    def __init__(
        self, run: RunFolder, tokens: dict[str, Dataset], tokenizer: PreTrainedTokenizerBase, label_names: list[str]
    ):
        self.run_folder, self.tokens = run, tokens
        self.tokenizer, self.label_names = tokenizer, label_names

    def known(self, part: str) -> np.ndarray:
        """`[N]` labels of a part of the split."""
        return np.asarray(self.tokens[part]["labels"][:], dtype=np.int64)

    def keep(
        self, folder: Path, model: PreTrainedModel, splits: Sequence[str] = MEASURED
    ) -> dict[str, dict[str, float] | None]:
        """Saves the model and its logits on the held-out splits; returns their metrics, `None` for what is no more."""
        metrics: dict[str, dict[str, float] | None] = dict.fromkeys(MEASURED)
        logits = {}
        for name in splits:
            part = self.tokens[name]
            labels = self.known(name)
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

    def manifests(self) -> list[dict[str, Any]]:
        """What each finished stage has trained on, the refit excepted, which comes after the verdict."""
        done = (
            self.run_folder.done(name)
            for name in ("adapted_backbone", LABELS_ONLY, "pretext", "self_training", CROSS_FIT)
        )
        return [manifest for record in done if record is not None for manifest in record["manifests"]]

    def of(self, names: Iterable[str]) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
        """What a verdict on these stages rests on: probabilities of rows with known labels, these, and remarks.

        The rows are those of `validation` and, where there was cross-fitting, the labeled ones.
        """
        probs = {name: self.predictions(name)["validation"] for name in names}
        labels, known = self.known("validation"), self.known("labeled")
        if self.run_folder.done(CROSS_FIT) is None:
            return probs, labels, []
        found = CrossFit(self.run_folder.stage(CROSS_FIT))
        remarks = [f"{len(known)} of the held-out rows are the labeled ones, by cross-fitting in {found.folds} folds."]
        if found.agreement:
            shares = ", ".join(f"{stage_name(name)} {100 * share:.0f}%" for name, share in found.agreement.items())
            remarks.append(f"Share of set-aside texts on which models of different folds agree: {shares}.")
        joined = {name: np.concatenate([table, found.probs[name]]) for name, table in probs.items()}
        return joined, np.concatenate([labels, known]), remarks

    def test_gains(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Stage -> its gain in accuracy over labels only on the test part, and its 95% interval; empty without one.

        For the reader: nothing is chosen by it.
        """
        labels = self.known("test")
        if not len(labels):
            return {}
        right = {name: self.logits(name)["test"].argmax(axis=-1) == labels for name in names}
        gains = {name: paired_gain(right[LABELS_ONLY], right[name]) for name in right if name != LABELS_ONLY}
        return {name: {"gain": gain, "interval": [low, high]} for name, (gain, low, high) in gains.items()}

    def alarms(self) -> list[str]:
        """What self-training raised against its own result."""
        return (self.run_folder.done("self_training") or {}).get("alarms", [])

    def notes(self) -> list[str]:
        """What self-training found remarkable."""
        return (self.run_folder.done("self_training") or {}).get("notes", [])

    def observations(self, rounds: SelfTraining, pool: Dataset) -> dict[str, list[str]]:
        """Alarms, which speak against the student, and notes, which a reader of the verdict should know anyhow.

        Computed as in training, in bf16 where that was: how often models agree asks for no more.

        Args:
            rounds: finished ones.
            pool: tokenized rows, those that the rounds had.
        """
        alarms, notes = lost_classes(rounds.transduction_, self.known("labeled"), self.label_names), []
        with torch.autocast(rounds.args.device.type, torch.bfloat16, enabled=rounds.args.bf16):
            alarms += self._unlearned(rounds, pool)
            if len(self.tokens["proxy"]):
                student = softmax(predict_logits(rounds.student_, self.tokens["proxy"], self.tokenizer), axis=-1)
                alarms += drifted_class_prior(student, rounds.class_prior_)
                notes += self._estimates(student, rounds.args.device)
        if (around := rounds.neighborhood_) is not None:
            filtered = rounds.args.ood_filter
            alarms += ood_pool(around.novel, filtered=filtered and not around.novel.all())
            notes += ood_rows_left_out(around.novel) if filtered else []
        return {"alarms": alarms, "notes": notes}

    def _unlearned(self, rounds: SelfTraining, pool: Dataset) -> list[str]:
        """Whether the student says what it was taught, on some rows of the pool that it was taught from."""
        taught = np.flatnonzero(rounds.labeled_iter_ >= 0)
        if not len(taught):
            return []
        if len(taught) > LOOKED_AT:
            generator = numpy_generator(rounds.args.seed, "unlearned")
            taught = np.sort(generator.choice(taught, LOOKED_AT, replace=False))
        rows = pool.select(taught)
        logits = predict_logits(rounds.student_, rows, self.tokenizer), self._baseline(rows, rounds.args.device)
        return unlearned_labels(*(scores.argmax(axis=-1) for scores in logits), rounds.transduction_[taught])

    def _baseline(self, rows: Dataset, device: torch.device) -> np.ndarray:
        """`[N, K]` logits of the labels-only model."""
        model = from_pretrained(self.run_folder.stage(LABELS_ONLY) / "model")
        return predict_logits(model, rows, self.tokenizer, device=device)

    def _estimates(self, student_probs: np.ndarray, device: torch.device) -> list[str]:
        """What labels only and the student would get right of `proxy`, whose labels are not looked at."""
        labels = self.known("validation")
        if len(labels) < MIN_HELD_OUT:
            return []
        baseline = self._baseline(self.tokens["proxy"], device)
        before, after = (
            100 * average_thresholded_confidence(self.predictions(stage)["validation"], labels, probs)
            for stage, probs in ((LABELS_ONLY, softmax(baseline, axis=-1)), ("self_training", student_probs))
        )
        return [
            f"Accuracy on {len(student_probs):,} set-aside texts, estimated without their labels (average thresholded "
            f"confidence): labels only {before:.0f}%, self-trained {after:.0f}%; no surer than the {len(labels)} "
            "held-out labels that it rests on."
        ]
