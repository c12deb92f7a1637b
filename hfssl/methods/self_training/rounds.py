"""Rounds of self-training: teacher -> pseudo-labels with uncertainty -> student -> next teacher.

The driver around the trainers, in scikit-learn's manner. Every round leaves a line in `rounds.jsonl` and its student
on disk, so that a killed run goes on with the round (and, inside it, with the step) where it stopped.

Under several ranks they share the scoring of the pool and each gets the whole of it; the main process's pseudo-labels
count: labels that each rank selects for itself could differ by a last bit between two machines, and with them the
length of the students' epochs. Only the main process writes files.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hfssl.errors import TrainingError
from hfssl.functional.class_priors import given_prior
from hfssl.inference.predictions import MCDropoutResult
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.cache import look_around
from hfssl.methods.self_training.frozen_encoder.signals import Neighborhood
from hfssl.methods.self_training.pseudo_labels import PseudoLabels, pseudo_label
from hfssl.methods.self_training.round_records import (
    describe_round,
    health,
    is_kept,
    measure_student,
    termination_condition,
)
from hfssl.methods.self_training.student import SelfTrainingObjective, SelfTrainingTrainer
from hfssl.methods.self_training.teachers import (
    Opinions,
    Teacher,
    find_class_prior,
    form_committee,
    held_out_temperature,
    probe_weight,
    score_pool,
    with_soup,
)
from hfssl.metrics.significance import disagreement
from hfssl.models.adapters import trainable_copy
from hfssl.models.auto import from_pretrained
from hfssl.models.checkpoints import save_checkpoint
from hfssl.runtime.distributed import broadcast, is_main, wait_for_everyone
from hfssl.runtime.files import append_json_line, read_json_lines, write_json_lines
from hfssl.runtime.seeding import derive_seed, numpy_generator

__all__ = ["SelfTraining"]

logger = logging.get_logger(__name__)

OPINIONS, PSEUDO_LABELS = "opinions.npz", "pseudo_labels.npz"


class SelfTraining:
    """Runs rounds of self-training and keeps the last student, unless held-out rows say that the one before is better.

    Args:
        make_student (`Callable[[int], PreTrainedModel]`): Returns a fresh student for a seed.
        args (`SelfTrainingConfig`): Training arguments of each student, and the settings of the rounds.
        processing_class (`PreTrainedTokenizerBase`): The tokenizer.
        label_names (`list[str]`): K names.
        output_dir (`Path`): Gets `rounds.jsonl` and a folder a round.
        peft_config (*optional*): Adapter settings; each student then is a fresh adapter.
        title (`str`): Names the progress bars.

    Attributes:
        student_: The last round's student; the one before where `validation_fell`, and the first teacher where no
            round selected a row.
        transduction_: `[N]` label of each row of the pool, by the last teacher that looked at it.
        labeled_iter_: `[N]` first round in which a row was taught from; -1 for never.
        n_iter_: Rounds that were run.
        class_prior_: `[K]` shares that the pool's labels were brought to, given or found in the first round; `None`
            for none.
        neighborhood_: What the backbone's embeddings say of the pool; `None` where no setting asks for it.
        termination_condition_: `"max_rounds"`, `"labels_stable"` (`stop_agreement`), `"validation_fell"` (by more
            than chance) or `"nothing_selected"`.
        rounds_: The records of `rounds.jsonl`.
        curves_: The students' training logs, with the round in each entry.
    """

    def __init__(
        self,
        make_student: Callable[[int], PreTrainedModel],
        args: SelfTrainingConfig,
        *,
        processing_class: PreTrainedTokenizerBase,
        label_names: list[str],
        output_dir: str | Path,
        peft_config: Any = None,
        title: str = "self-training",
    ):
        self.make_student, self.args, self.tokenizer = make_student, args, processing_class
        self.label_names, self.output_dir = label_names, Path(output_dir)
        self.peft_config, self.title = peft_config, title
        given = args.class_prior
        self.given_prior = None if given is None else given_prior(given, label_names)

    def fit(
        self,
        teachers: PreTrainedModel | Sequence[PreTrainedModel],
        labeled: Dataset,
        pool: Dataset,
        *,
        validation: Dataset | None = None,
        hidden_labels: np.ndarray | None = None,
    ) -> SelfTraining:
        """Runs the rounds, or what is left of them when `output_dir` holds earlier ones.

        Args:
            teachers: The first teacher, fine-tuned on the labels, or several whose probabilities are averaged; later
                rounds are taught by the student.
            labeled: Tokenized rows with `labels`.
            pool: Tokenized rows; labels in it are not looked at.
            validation: Tokenized rows with `labels`, which are never trained on. They are measured after each round,
                end the rounds when a student is worse than the one before by more than chance, and fit the
                temperature before a threshold.
            hidden_labels: `[N]` true labels of the pool where known, else -1; used for the records only.
        """
        if len(pool) == 0:
            raise TrainingError(
                "Self-training needs unlabeled rows, got none; add --unlabeled or train on labels only."
            )
        device = self.args.device  # also starts the process group, before the ranks talk
        self.rounds_: list[dict] = broadcast(read_json_lines(self.output_dir / "rounds.jsonl"))
        self.class_prior_: np.ndarray | None = None
        self.neighborhood_: Neighborhood | None = None
        self.probe_weight_ = 0.0
        self.labeled_iter_ = np.full(len(pool), -1)
        self.transduction_: np.ndarray | None = None
        teachers = list(teachers) if isinstance(teachers, Sequence) else [teachers]
        teachers = [teacher.to(device) for teacher in teachers]
        self._teachers = self._committee(self._first_teachers(teachers), labeled)
        self.student_, self.termination_condition_ = teachers[0], ""
        self.curves_: list[dict] = []
        for record in self.rounds_:
            self._recall(record)
        while not self.termination_condition_:
            self._run_round(len(self.rounds_), labeled, pool, validation, hidden_labels)
        self.n_iter_ = len(self.rounds_)
        return self

    def refit(
        self, teachers: Sequence[PreTrainedModel], labeled: Dataset, pool: Dataset, folder: str | Path
    ) -> tuple[PreTrainedModel, list[dict]]:
        """The last round once more, with more labels and new teachers.

        The first round's own teachers, who had fewer labels, have no say any more: beside one or two new ones they
        took 0.6 to 0.9 points (benchmarks/NOTES.md, 2026-11-26). What taught a later round keeps half of the say.

        Args:
            teachers: Models that were fine-tuned on `labeled`.
            labeled: Tokenized rows with `labels`, more than `fit` had.
            pool: The pool that `fit` had.
            folder: Gets the student; `output_dir` holds the rounds of a finished `fit`.

        Returns:
            The student and its training log.

        Raises:
            TrainingError: No round has taught anything.
        """
        records, folder = read_json_lines(self.output_dir / "rounds.jsonl"), Path(folder)
        taught = [record["round"] for record in records if is_kept(record)]
        if not taught:
            raise TrainingError("Expected a finished round with pseudo-labels to repeat, found none; run `fit` first.")
        last, place = taught[-1], self._round_dir(taught[-1])
        self.probe_weight_ = records[0]["probe_weight"]  # the labels that it rests on are among `labeled` now
        around = self._look_around(labeled, pool, None, folder)
        teachers = [teacher.to(self.args.device) for teacher in teachers]
        self._teachers = self._committee(self._first_teachers(teachers), labeled)
        opinions = self._opinions(self._score(self._teachers, pool, "refit", self.title), around)
        if last == 0:
            shares = self._find_prior(opinions, labeled)
        else:  # what a student finds is what its own teachers made of the shares
            opinions = Opinions.load(place / OPINIONS).beside(opinions)
            shares = PseudoLabels.load(place / PSEUDO_LABELS)[1].get("class_prior")
        temperature = records[last]["temperature"]  # no label is held out any more
        labels = self._select(opinions, "refit", around, shares, temperature, fraction=self.args.fraction_at(last))
        if is_main():
            labels.save(folder / PSEUDO_LABELS, class_prior=shares)
        return self._train_student(last, self.title, labels, labeled, pool, folder)

    def describe(self) -> dict[str, Any]:
        """Settings and outcome for the report and the card."""
        return {
            "method": type(self).__name__,
            "paper": SelfTrainingObjective.paper,
            "citation": SelfTrainingObjective.citation,
            "rounds_run": self.n_iter_,
            "termination_condition": self.termination_condition_,
        }

    def _round_dir(self, number: int) -> Path:
        return self.output_dir / f"round-{number}"

    def _recall(self, record: dict) -> None:
        """Takes up a finished round from disk."""
        number = record["round"]
        labels, beside = PseudoLabels.load(self._round_dir(number) / PSEUDO_LABELS)
        self._remember(number, labels.rows, labels.predicted)
        self.class_prior_ = beside.get("class_prior")
        if is_kept(record):
            self.student_ = from_pretrained(self._round_dir(number) / "student").to(self.args.device)
            self._teachers = self._committee([self.student_])
        if record["selected"]:
            self.curves_ += read_json_lines(self._round_dir(number) / "curve.jsonl")
        self.termination_condition_ = record["termination_condition"]
        if is_main():
            self._tidy(number)  # a kill may have come before it

    def _tidy(self, number: int) -> None:
        """Removes a finished round's checkpoints: the student is saved, and these are 3x its size."""
        shutil.rmtree(self._round_dir(number) / "checkpoints", ignore_errors=True)

    def _remember(self, number: int, rows: np.ndarray, predicted: np.ndarray) -> None:
        fresh = rows[self.labeled_iter_[rows] < 0]
        self.labeled_iter_[fresh] = number
        self.transduction_ = predicted

    def _run_round(
        self,
        number: int,
        labeled: Dataset,
        pool: Dataset,
        validation: Dataset | None,
        hidden_labels: np.ndarray | None,
    ) -> None:
        started = time.perf_counter()
        title = f"{self.title}, round {number + 1} of {self.args.rounds}"
        labels, record = self._label_pool(number, title, labeled, pool, validation, hidden_labels)
        self._remember(number, labels.rows, labels.predicted)
        before = self.student_
        if len(labels.rows):
            folder, notes = self._round_dir(number), health(record)
            self.student_, curve = self._train_student(number, title, labels, labeled, pool, folder, notes=notes)
            self.curves_ += curve
            self._teachers = self._committee([self.student_])
        elif is_main():
            logger.warning("%s selected no rows: the previous student is kept and the rounds end.", title)
        # Whether the first student is better than the first teacher is for the verdict to say.
        record |= measure_student(self.student_, before if number else self.student_, validation, self.tokenizer)
        record["seconds"] = time.perf_counter() - started
        record["termination_condition"] = termination_condition(record, self.args)
        record = broadcast(record)  # the seconds differ
        wait_for_everyone()  # no rank needs the checkpoints any more
        if is_main():
            append_json_line(self.output_dir / "rounds.jsonl", record)
            self._tidy(number)
        if not is_kept(record):
            self.student_ = before
        self.rounds_.append(record)
        self.termination_condition_ = record["termination_condition"]
        wait_for_everyone()  # whoever goes on finds the round on disk

    def _label_pool(
        self,
        number: int,
        title: str,
        labeled: Dataset,
        pool: Dataset,
        validation: Dataset | None,
        hidden_labels: np.ndarray | None,
    ) -> tuple[PseudoLabels, dict[str, Any]]:
        """What the teachers hand to the student of a round, kept in its folder, and the first half of its record."""
        folder, first = self._round_dir(number), number == 0
        around = self.neighborhood_ = self._look_around(labeled, pool, validation, self.output_dir)
        heard = around if first else None  # later teachers have learned what the backbone says, and the pool stays
        results = self._score(self._teachers, pool, number, title)
        if first:
            self.probe_weight_ = probe_weight(around, self._teachers, validation, self.tokenizer)
        opinions = self._opinions(results, heard)
        if first:
            self.class_prior_ = self._find_prior(opinions, labeled)
        temperature = 1.0
        if self.args.selection_strategy == "threshold":
            temperature = held_out_temperature(heard, self._teachers, validation, self.tokenizer, self.probe_weight_)
        fraction = self.args.fraction_at(number)
        labels = self._select(opinions, number, around, self.class_prior_, temperature, fraction=fraction)
        if is_main():
            opinions.save(folder / OPINIONS)
            labels.save(folder / PSEUDO_LABELS, class_prior=self.class_prior_)
        record = describe_round(
            number,
            labels,
            self.label_names,
            before=self.transduction_,
            hidden_labels=hidden_labels,
            around=around,
            class_prior=self.class_prior_,
            probe_weight=self.probe_weight_ if first else 0.0,
            temperature=temperature,
            teacher_disagreement=disagreement(opinions.teacher_probs.argmax(axis=-1)),
        )
        return labels, record

    def _look_around(
        self, labeled: Dataset, pool: Dataset, validation: Dataset | None, folder: Path
    ) -> Neighborhood | None:
        return look_around(
            lambda: self.make_student(self.args.seed),
            labeled,
            pool,
            validation,
            self.tokenizer,
            self.args,
            label_names=self.label_names,
            folder=folder,
            pool_folder=self.output_dir,
            title=self._shown(self.title),
        )

    def _first_teachers(self, models: list[PreTrainedModel]) -> list[PreTrainedModel]:
        return with_soup(models) if self.args.model_soup else models

    def _committee(self, models: Sequence[PreTrainedModel], labeled: Dataset | None = None) -> list[Teacher]:
        """The models as teachers: those of the first round may speak through probes that are fitted to `labeled`."""
        return form_committee(
            models,
            labeled if self.args.teacher_probe else None,
            self.tokenizer,
            num_classes=len(self.label_names),
            bf16=self.args.bf16,
        )

    def _score(
        self, teachers: Sequence[Teacher], pool: Dataset, stream: str | int, title: str
    ) -> list[MCDropoutResult]:
        return score_pool(
            teachers,
            pool,
            self.tokenizer,
            self.args,
            passes=self.args.mc_passes,
            stream=stream,
            title=self._shown(title),
        )

    def _find_prior(self, opinions: Opinions, labeled: Dataset) -> np.ndarray | None:
        """The class prior that are given, or those that the settings ask to find."""
        if self.given_prior is not None:
            return self.given_prior
        return find_class_prior(opinions, labeled["labels"][:], self.args.distribution_alignment, self.probe_weight_)

    def _opinions(self, results: Sequence[MCDropoutResult], around: Neighborhood | None) -> Opinions:
        return Opinions.of(results, around, self.probe_weight_, self.args.knn_smoothing)

    def _select(
        self,
        opinions: Opinions,
        stream: str | int,
        around: Neighborhood | None,
        shares: np.ndarray | None,
        temperature: float,
        *,
        fraction: float,
    ) -> PseudoLabels:
        generator = numpy_generator(self.args.seed, "selection", stream)
        more = {"temperature": temperature, "fraction": fraction, "neighborhood": around}
        return broadcast(pseudo_label(opinions.joined, self.args, generator, shares, **more))

    def _shown(self, title: str) -> str | None:
        return None if self.args.disable_tqdm or not is_main() else title

    def _train_student(
        self,
        number: int,
        title: str,
        labels: PseudoLabels,
        labeled: Dataset,
        pool: Dataset,
        folder: Path,
        notes: Mapping[str, float] | None = None,
    ) -> tuple[PreTrainedModel, list[dict]]:
        """The student of a round, saved in `folder`, and its training log, with `notes` in its first entry."""
        seed = derive_seed(self.args.seed, "student", number) % 2**31
        columns = [name for name in pool.column_names if name in self.tokenizer.model_input_names]
        selected = labels.beside(pool.select_columns(columns))  # no label column reaches the student
        fresh = self.args.student_init == "pretrained"
        trainer = SelfTrainingTrainer(
            self.make_student(seed) if fresh else trainable_copy(self._teachers[0].model),
            replace(
                self.args,
                output_dir=str(folder / "checkpoints"),
                seed=seed,
                tensorboard_dir=self.args.tensorboard_dir or str(self.output_dir / "tensorboard"),
            ),
            train_dataset=labeled,
            unlabeled_dataset=selected,
            processing_class=self.tokenizer,
            peft_config=self.peft_config if fresh else None,  # a teacher brings its adapter along
            title=f"{title}: student",
        )
        trainer.notes.update(notes or {})
        trainer.train(resume_from_checkpoint=True)
        curve = [{**entry, "round": number} for entry in trainer.state.log_history]
        if is_main():
            write_json_lines(folder / "curve.jsonl", curve)
            save_checkpoint(trainer.model, self.tokenizer, folder / "student", self.label_names)
        return trainer.model.eval(), curve
