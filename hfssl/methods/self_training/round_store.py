"""The files of the rounds of self-training: their paths, and functions that write and read them.

    output_dir/rounds.jsonl             a line for each finished round
    output_dir/round-N/ensemble.npz     predictions of its teachers
    output_dir/round-N/pseudo_labels.npz
    output_dir/round-N/checkpoints/     checkpoints of its student during training
    output_dir/round-N/curve.jsonl      log of that training
    output_dir/round-N/student/         the student

A round is finished when its line is written. After a kill, a round without a line is run again, and its student
resumes from its last checkpoint. Only rank 0 writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.methods.self_training.pseudo_labels import PseudoLabels
from hfssl.methods.self_training.teachers import EnsemblePrediction
from hfssl.models.auto import from_pretrained
from hfssl.models.checkpoints import save_checkpoint
from hfssl.runtime.distributed import broadcast, is_main, wait_for_everyone
from hfssl.runtime.files import append_json_line, read_json_lines, write_json_lines

__all__ = ["RoundFolder", "RoundStore"]

ROUNDS_FILE, ENSEMBLE_FILE, PSEUDO_LABELS_FILE, CURVE_FILE = (
    "rounds.jsonl",
    "ensemble.npz",
    "pseudo_labels.npz",
    "curve.jsonl",
)


@dataclass(frozen=True)
class RoundFolder:
    """Reads and writes the files of one round, or of a refit.

    Attributes:
        path (`Path`): The folder; it need not exist yet.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Returns the folder of the student's checkpoints, which exists until the round is finished."""
        return self.path / "checkpoints"

    def save_labels(
        self, labels: PseudoLabels, class_prior: np.ndarray | None, ensemble: EnsemblePrediction | None = None
    ) -> None:
        """Saves the pseudo-labels, the class prior and, for later rounds, the ensemble's predictions.

        Args:
            labels (`PseudoLabels`): Pseudo-labels of the student.
            class_prior (`np.ndarray`, *optional*): Class prior to which they were aligned, `[K]`.
            ensemble (`EnsemblePrediction`, *optional*): Predictions of the teachers.
        """
        if is_main():
            if ensemble is not None:
                ensemble.save(self.path / ENSEMBLE_FILE)
            labels.save(self.path / PSEUDO_LABELS_FILE, class_prior=class_prior)

    def load_labels(self) -> tuple[PseudoLabels, np.ndarray | None]:
        """Returns the pseudo-labels and the class prior, `[K]`, or `None` where there was none."""
        labels, arrays = PseudoLabels.load(self.path / PSEUDO_LABELS_FILE)
        return labels, arrays.get("class_prior")

    def load_ensemble(self) -> EnsemblePrediction:
        """Returns the predictions of the teachers."""
        return EnsemblePrediction.load(self.path / ENSEMBLE_FILE)

    def save_student(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        label_names: Sequence[str],
        curve: Sequence[Mapping[str, Any]],
    ) -> None:
        """Saves the student and the log of its training.

        Args:
            model (`PreTrainedModel`): The student.
            tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
            label_names (`Sequence[str]`): Names of the K classes.
            curve (`Sequence[Mapping[str, Any]]`): Entries of the log.
        """
        if is_main():
            write_json_lines(self.path / CURVE_FILE, curve)
            save_checkpoint(model, tokenizer, self.path / "student", label_names)

    def load_student(self) -> PreTrainedModel:
        """Returns the student, on the CPU."""
        return from_pretrained(self.path / "student")

    def load_curve(self) -> list[dict[str, Any]]:
        """Returns the log of the student's training; empty where there was no student."""
        return read_json_lines(self.path / CURVE_FILE)


class RoundStore:
    """Finds, reads and writes the files of all rounds of one run.

    Args:
        output_dir (`str` or `Path`): Folder of the run.
    """

    def __init__(self, output_dir: str | Path):
        self.output_dir = Path(output_dir)

    def __getitem__(self, number: int) -> RoundFolder:
        """Returns the files of round `number`, from 0."""
        return RoundFolder(self.output_dir / f"round-{number}")

    def records(self) -> list[dict[str, Any]]:
        """Returns rank 0's records of the finished rounds. Collective: every rank must call this."""
        return broadcast(read_json_lines(self.output_dir / ROUNDS_FILE))

    def finish(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Ends a round: writes its record and removes its checkpoints. Collective: every rank must call this.

        Args:
            record (`Mapping[str, Any]`): Record of the round; its duration differs between the ranks.

        Returns:
            Rank 0's record.
        """
        record = broadcast(dict(record))
        wait_for_everyone()  # no rank needs the checkpoints after this
        if is_main():
            append_json_line(self.output_dir / ROUNDS_FILE, record)
        self.tidy(record["round"])
        wait_for_everyone()  # the finished round is on disk for every rank
        return record

    def tidy(self, number: int) -> None:
        """Removes the checkpoints of a finished round, three times the size of its student, which is saved."""
        if is_main():
            shutil.rmtree(self[number].checkpoints, ignore_errors=True)
