"""`HeldOutPredictions`: predictions of each stage's model for held-out rows, stored on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

from hfssl.config.stages import LABELS_ONLY, stage_row
from hfssl.evaluation.baselines import BASELINES, judge_standing
from hfssl.evaluation.cross_fitting import ARRAYS, CrossFit
from hfssl.inference.scoring import predict_logits
from hfssl.metrics.significance import paired_gain
from hfssl.models.checkpoints import save_checkpoint
from hfssl.pipeline.fold_store import FoldStore
from hfssl.pipeline.run_folder import RunFolder
from hfssl.reporting.results import OUT_OF_FOLD, PARTS
from hfssl.runtime.files import read_arrays, write_arrays
from hfssl.tasks.base import Task
from hfssl.training.extras import run_extras

__all__ = ["LOGITS", "Evidence", "HeldOutPredictions"]

CROSS_FITTING, FOLDS, SELF_TRAINING, LOGITS = "cross_fitting", "folds", "self_training", "logits.npz"
MEASURED = ("validation", "test")

# Standard deviation and mean of the difference between the gain of the folds' models and that of the final ones: an
# assumption, until runs on the development sets have measured it.
STUDENTS, STAND_IN = (0.02, 0.0), (0.03, 0.0)


@dataclass(frozen=True)
class Evidence:
    """Holds what models of several stages say about labels that they have not seen.

    Args:
        probs (`dict[str, np.ndarray]`): Stage -> probabilities, `[N, K]`; N may be 0.
        labels (`np.ndarray`): Labels of the rows, `[N]`.
        spread (`float`, defaults to 0): Standard deviation of the difference between the gain of these models and that
            of the final ones, in `[0, 1]`.
        shift (`float`, defaults to 0): Mean of that difference, in `[-1, 1]`.
        remarks (`list[str]`): Sentences on where the evidence comes from.
    """

    probs: dict[str, np.ndarray]
    labels: np.ndarray
    spread: float = 0.0
    shift: float = 0.0
    remarks: list[str] = field(default_factory=list)

    @property
    def difference(self) -> dict[str, float]:
        """Returns `spread` and `shift`, as `judge` takes them."""
        return {"spread": self.spread, "shift": self.shift}


def _joined(parts: Sequence[Evidence], stages: Sequence[str]) -> Evidence:
    """Returns the rows of all parts; those of no part have no rows."""
    if not parts:
        return Evidence({name: np.zeros((0, 1), np.float32) for name in stages}, np.zeros(0, dtype=np.int64))
    if len(parts) == 1:
        return parts[0]
    probs = {name: np.concatenate([part.probs[name] for part in parts]) for name in stages}
    sizes = np.array([len(part.labels) for part in parts])
    spread, shift = (
        float(np.average([getattr(part, name) for part in parts], weights=sizes)) for name in ("spread", "shift")
    )
    remarks = [remark for part in parts for remark in part.remarks]
    return Evidence(probs, np.concatenate([part.labels for part in parts]), spread, shift, remarks)


class HeldOutPredictions:
    """Measures the stages' models on the held-out rows, and stores their predictions.

    Args:
        run_folder (`RunFolder`): Folders of the stages.
        tokens (`dict[str, Dataset]`): Parts of the split, tokenized.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        label_names (`list[str]`): Names of the K classes.
        task (`Task`): Kind of prediction.
        folds (`np.ndarray`, *optional*): Fold of each labeled row, `[L]`, -1 for none.
    """

    def __init__(
        self,
        run_folder: RunFolder,
        tokens: dict[str, Dataset],
        tokenizer: PreTrainedTokenizerBase,
        label_names: list[str],
        task: Task,
        folds: np.ndarray | None = None,
    ):
        self.run_folder, self.tokens = run_folder, tokens
        self.tokenizer, self.label_names, self.task = tokenizer, label_names, task
        self.row_folds, self.folds = folds, None
        if folds is not None:
            numbers = folds[task.unit_rows(len(folds), len(label_names))]
            labels = task.unit_labels(self.labels("labeled"))
            self.folds = FoldStore(run_folder.stage(FOLDS), numbers, labels, task)

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
            metrics[name] = self._measured(logits[name], labels) if len(part) else None
        write_arrays(folder / LOGITS, logits)
        save_checkpoint(model, self.tokenizer, folder / "model", self.label_names)
        return metrics

    def _measured(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Returns the task's metrics, and those of the user's `compute_metrics`."""
        metrics, own = self.task.evaluate(self.task.probs(logits), labels), run_extras().compute_metrics
        if own is None:
            return metrics
        given = own(EvalPrediction(predictions=logits, label_ids=labels))
        return metrics | {str(name): float(value) for name, value in given.items() if name not in metrics}

    def logits(self, stage: str) -> dict[str, np.ndarray]:
        """Returns part -> logits `[N, K]` of a finished stage."""
        return read_arrays(self.run_folder.stage(stage) / LOGITS)

    def predictions(self, stage: str) -> dict[str, np.ndarray]:
        """Returns part -> probabilities `[N, K]` of a finished stage."""
        return {name: self.task.probs(values) for name, values in self.logits(stage).items()}

    def evidence(self, stages: Sequence[str]) -> Evidence:
        """Returns what the models of these stages say about labels that they have not seen.

        The rows are those of `validation` and, after cross-fitting or where there are no other rows, the labeled ones
        in folds, each predicted by the models without its fold.

        Args:
            stages (`Sequence[str]`): Names of finished stages, labels only among them.
        """
        parts = []
        if len(labels := self.labels("validation")):
            parts.append(Evidence({name: self.predictions(name)["validation"] for name in stages}, labels))
        if (folds := self._of_folds(stages)) is not None and (not parts or self._has(CROSS_FITTING)):
            parts.append(folds)
        return _joined(parts, stages)

    def out_of_fold(self, stages: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns stage -> logits for the labeled rows in folds, `[L, K]`, by models that were trained without them.

        Stages without such models are left out. For self-training without students of the folds, the ensembles that
        would teach them stand in.

        Args:
            stages (`Sequence[str]`): Names of stages.
        """
        if self.folds is None or not self._has(FOLDS):
            return {}
        found = self.folds.heads().logits
        if self._has(CROSS_FITTING):
            found = found | CrossFit(self.run_folder.stage(CROSS_FITTING), self.task).logits
        elif SELF_TRAINING in stages and self.task.class_per_row and self.folds.has_everyone():
            found[SELF_TRAINING] = np.log(np.maximum(self.folds.stacked(), 1e-12))
        return {name: found[name] for name in stages if name in found}

    def is_stand_in(self, stage: str) -> bool:
        """Returns whether the `out_of_fold` predictions of a stage are those of the ensembles that would teach it."""
        return stage == SELF_TRAINING and not self._has(CROSS_FITTING)

    def out_of_fold_metrics(
        self, stages: Sequence[str], temperature: float = 1.0
    ) -> dict[str, dict[str, dict[str, float]]]:
        """Returns stage -> `"out_of_fold"` -> metrics of `out_of_fold`; stages without such models are left out.

        Args:
            stages (`Sequence[str]`): Names of stages.
            temperature (`float`, defaults to 1): Divisor of the logits.
        """
        labels, task = self.out_of_fold_labels(), self.task
        found = self.out_of_fold(stages) if len(labels) else {}
        return {
            name: {OUT_OF_FOLD: task.evaluate(task.probs(logits / temperature), labels)}
            for name, logits in found.items()
        }

    def out_of_fold_labels(self) -> np.ndarray:
        """Returns the labels of the rows of `out_of_fold`, `[L]`."""
        labels = self.labels("labeled")
        return labels[:0] if self.row_folds is None else labels[self.row_folds >= 0]

    def _of_folds(self, stages: Sequence[str]) -> Evidence | None:
        """Returns the evidence of the folds; `None` where some stage has none."""
        probs = {name: self.task.probs(logits) for name, logits in self.out_of_fold(stages).items()}
        if set(probs) != set(stages):
            return None
        labels = self.out_of_fold_labels()
        counted = f"{len(labels)} of the held-out rows are labeled ones, each predicted by models trained without it"
        if SELF_TRAINING in stages and not self._has(CROSS_FITTING):
            remarks = [f"{counted}; the ensembles that label the pool stand for their student, which is not checked."]
            return Evidence(probs, labels, *STAND_IN, remarks)
        remarks = [f"{counted}. The models of the folds see fewer labels and take fewer steps than the final one."]
        if self._has(CROSS_FITTING):
            students = CrossFit(self.run_folder.stage(CROSS_FITTING), self.task).agreement
            agreement = {name: x for name, x in (self.folds.heads().agreement | students).items() if name in stages}
            if agreement:
                shares = ", ".join(f"{stage_row(name).model} {100 * x:.0f}%" for name, x in agreement.items())
                remarks.append(f"Share of set-aside texts on which models of different folds agree: {shares}.")
        return Evidence(probs, labels, *STUDENTS, remarks)

    def _has(self, stage: str) -> bool:
        return (self.run_folder.stage(stage) / ARRAYS).is_file()

    def baselines(self, part: str) -> dict[str, np.ndarray]:
        """Returns baseline -> probabilities for a part, or for the labeled rows in folds; empty without any.

        Args:
            part (`str`): `"test"`, `"validation"` or `"out_of_fold"`.
        """
        path = self.run_folder.stage("baselines") / LOGITS
        arrays = read_arrays(path) if path.is_file() else {}
        found = {name: arrays[f"{name}/{part}"] for name in BASELINES if f"{name}/{part}" in arrays}
        return {name: self.task.probs(logits) for name, logits in found.items() if len(logits)}

    def part_labels(self, part: str) -> np.ndarray:
        """Returns the labels of a held-out part, or of the labeled rows in folds (all of them without folds)."""
        if part != OUT_OF_FOLD:
            return self.labels(part)
        return self.labels("labeled") if self.row_folds is None else self.out_of_fold_labels()

    def baseline_metrics(self) -> list[dict[str, Any]]:
        """Returns name and metrics by part of each baseline, as for a stage."""
        found = {part: self.baselines(part) for part in PARTS}
        return [
            {
                "name": name,
                "metrics": {
                    part: self.task.evaluate(probs[name], self.part_labels(part)) if name in probs else None
                    for part, probs in found.items()
                },
            }
            for name in BASELINES
            if any(name in probs for probs in found.values())
        ]

    def standing(self, stage: str, selected_stage: str) -> dict[str, Any] | None:
        """Returns how the final model compares with the baselines on the part that says most; `None` without rows.

        Args:
            stage (`str`): Stage of the final model.
            selected_stage (`str`): Stage that the verdict selected, which stands for a refit on rows that the refit
                has learned from.
        """
        for part in PARTS:
            baselines, labels = self.baselines(part), self.part_labels(part)
            if part == OUT_OF_FOLD:
                logits = self.out_of_fold([selected_stage]).get(selected_stage)
            else:
                logits = self.logits(stage).get(part, self.logits(selected_stage).get(part))
            if baselines and logits is not None and len(logits) == len(labels) > 0:
                final = self.task.probs(logits)
                compared = judge_standing(final, baselines, labels, self.task)
                return {"part": part, "rows": len(labels), "compared": [one.as_dict() for one in compared]}
        return None

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
