"""`HeldOutPredictions`: predictions of each stage's model for held-out rows, stored on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.config.stages import LABELS_ONLY, stage_row
from hfssl.evaluation.cross_fitting import CrossFit
from hfssl.inference.scoring import predict_logits
from hfssl.metrics.significance import paired_gain
from hfssl.models.checkpoints import save_checkpoint
from hfssl.pipeline.run_folder import RunFolder
from hfssl.runtime.files import read_arrays, write_arrays
from hfssl.tasks.base import Task

__all__ = ["LOGITS", "HeldOutPredictions"]

CROSS_FITTING, LOGITS = "cross_fitting", "logits.npz"
MEASURED = ("validation", "test")


class HeldOutPredictions:
    """Measures the stages' models on the held-out rows, and stores their predictions.

    Args:
        run_folder (`RunFolder`): Folders of the stages.
        tokens (`dict[str, Dataset]`): Parts of the split, tokenized.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        label_names (`list[str]`): Names of the K classes.
        task (`Task`): Kind of prediction.
    """

    def __init__(
        self,
        run_folder: RunFolder,
        tokens: dict[str, Dataset],
        tokenizer: PreTrainedTokenizerBase,
        label_names: list[str],
        task: Task,
    ):
        self.run_folder, self.tokens = run_folder, tokens
        self.tokenizer, self.label_names, self.task = tokenizer, label_names, task

    def labels(self, part: str) -> np.ndarray:
        """Returns the labels of a part of the split, `[N]`."""
        return self.task.label_array(self.tokens[part])

    def keep(
        self, folder: Path, model: PreTrainedModel, parts: Sequence[str] = MEASURED
    ) -> dict[str, dict[str, float] | None]:
        """Saves the model and its logits on the held-out parts in a stage's folder; returns its metrics.

        Args:
            folder (`Path`): Folder of the stage.
            model (`PreTrainedModel`): Its classifier.
            parts (`Sequence[str]`, defaults to `("validation", "test")`): Parts to measure on: those that the model
                was not trained on.

        Returns:
            Part -> metrics; `None` for a part that is empty or not in `parts`.
        """
        metrics: dict[str, dict[str, float] | None] = dict.fromkeys(MEASURED)
        logits = {}
        for name in parts:
            part = self.tokens[name]
            labels = self.labels(name)
            logits[name] = (
                predict_logits(model, part, self.tokenizer)
                if len(part)
                else np.zeros((0, len(self.label_names)), np.float32)
            )
            metrics[name] = self.task.evaluate(self.task.probs(logits[name]), labels) if len(part) else None
        write_arrays(folder / LOGITS, logits)
        save_checkpoint(model, self.tokenizer, folder / "model", self.label_names)
        return metrics

    def logits(self, stage: str) -> dict[str, np.ndarray]:
        """Returns part -> logits `[N, K]` of a finished stage."""
        return read_arrays(self.run_folder.stage(stage) / LOGITS)

    def predictions(self, stage: str) -> dict[str, np.ndarray]:
        """Returns part -> probabilities `[N, K]` of a finished stage."""
        return {name: self.task.probs(values) for name, values in self.logits(stage).items()}

    def for_verdict(self, stages: Iterable[str]) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
        """Returns the evidence for a verdict on these stages: probabilities and labels of held-out rows, remarks.

        The rows are those of `validation` and, after cross-fitting, the labeled ones.
        """
        probs = {name: self.predictions(name)["validation"] for name in stages}
        labels, known = self.labels("validation"), self.labels("labeled")
        if self.run_folder.done(CROSS_FITTING) is None:
            return probs, labels, []
        found = CrossFit(self.run_folder.stage(CROSS_FITTING), self.task)
        remarks = [f"{len(known)} of the held-out rows are the labeled ones, by cross-fitting in {found.folds} folds."]
        if found.agreement:
            shares = ", ".join(f"{stage_row(name).model} {100 * x:.0f}%" for name, x in found.agreement.items())
            remarks.append(f"Share of set-aside texts on which models of different folds agree: {shares}.")
        both = {name: np.concatenate([table, found.probs[name]]) for name, table in probs.items()}
        return both, np.concatenate([labels, known]), remarks

    def test_gains(self, stages: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Returns stage -> gain in accuracy over labels only on `test`, with its 95% interval; empty without rows.

        The gains are for the reader: they select nothing.

        Args:
            stages (`Iterable[str]`): Names of the finished stages, labels only among them.
        """
        labels = self.labels("test")
        if not len(labels):
            return {}
        right = {name: self.task.right(self.predictions(name)["test"], labels) for name in stages}
        gains = {name: paired_gain(right[LABELS_ONLY], right[name]) for name in right if name != LABELS_ONLY}
        return {name: {"gain": gain, "interval": [low, high]} for name, (gain, low, high) in gains.items()}
