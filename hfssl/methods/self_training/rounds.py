"""Rounds of self-training: teacher -> pseudo-labels with uncertainty -> student -> next teacher.

`SelfTraining` is the driver of the trainers. `PseudoLabeler` labels the pool, and `RoundStore` stores the files of the
rounds: a killed run resumes in the round (and, within it, at the step) where it stopped.
"""

from __future__ import annotations

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
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.signals import EmbeddingSignals
from hfssl.methods.self_training.pseudo_labeler import LabeledPool, PseudoLabeler
from hfssl.methods.self_training.pseudo_labels import PseudoLabels
from hfssl.methods.self_training.round_records import (
    describe_round,
    health,
    is_kept,
    measure_student,
    termination_condition,
)
from hfssl.methods.self_training.round_store import RoundFolder, RoundStore
from hfssl.methods.self_training.student import SelfTrainingObjective, SelfTrainingTrainer
from hfssl.methods.self_training.teachers import Teacher, form_ensemble, with_soup
from hfssl.methods.self_training.votes import Votes
from hfssl.models.adapters import trainable_copy
from hfssl.runtime.distributed import is_main
from hfssl.runtime.seeding import derive_seed
from hfssl.tasks.registry import get_task
from hfssl.training.inputs import labeled_rows, plain_rows

__all__ = ["SelfTraining"]

logger = logging.get_logger(__name__)


class SelfTraining:
    """Runs rounds of self-training; selects the last student, or the previous one if held-out rows show a loss.

    Args:
        make_student (`Callable[[int], PreTrainedModel]`): Function that returns a fresh student for a random seed.
        args (`SelfTrainingConfig`): Training arguments of each student, and the settings of the rounds.
        processing_class (`PreTrainedTokenizerBase`): The tokenizer.
        label_names (`list[str]`): Names of the K classes.
        output_dir (`str` or `Path`): Folder of `rounds.jsonl` and of a folder for each round.
        peft_config (`PeftConfig`, *optional*): Adapter settings; each student then is a fresh adapter.
        title (`str`, defaults to `"self-training"`): Title of the progress bars.
        pool_embeddings (`np.ndarray`, *optional*): The pool's embeddings by the backbone where they are known, `[H, N,
            D]`.

    Attributes:
        student_ (`PreTrainedModel`): Student of the last round; of the previous round after `validation_fell`, and the
            first teacher where no round selected a row.
        transduction_ (`np.ndarray`): Label of each row of the pool, by the last teachers, `[N]`.
        labeled_iter_ (`np.ndarray`): First round in which each row was selected, `[N]`; -1 for never.
        n_iter_ (`int`): Number of rounds that were run.
        termination_condition_ (`str`): `"max_rounds"`, `"labels_stable"` (`stop_agreement`), `"validation_fell"` (by
            more than chance) or `"nothing_selected"`.
        class_prior_ (`np.ndarray`, *optional*): Class prior to which the pool's labels were aligned, given or
            estimated in the first round, `[K]`; `None` for none.
        signals_ (`EmbeddingSignals`, *optional*): Signals of the pool from the untrained backbone; `None` where no
            setting requires them.
        rounds_ (`list[dict]`): Records of the rounds, as in `rounds.jsonl`.
        curves_ (`list[dict]`): The students' training logs, with the round in each entry.

    Example:
        >>> import hfssl
        >>> from hfssl.data.tokenization import tokenize_dataset
        >>> config = hfssl.SelfTrainingConfig(
        ...     output_dir=str(folder), rounds=1, mc_passes=2, max_steps=2, disable_tqdm=True, use_cpu=True
        ... )
        >>> rounds = hfssl.SelfTraining(
        ...     lambda seed: hfssl.load_classifier(backbone, ["bad", "good"], seed=seed),
        ...     config,
        ...     processing_class=tokenizer,
        ...     label_names=["bad", "good"],
        ...     output_dir=folder,
        ... )
        >>> labeled, unlabeled = (tokenize_dataset(part, tokenizer, 128) for part in (dataset, pool))
        >>> rounds = rounds.fit(hfssl.load_classifier(backbone, ["bad", "good"], seed=0), labeled, unlabeled)
        >>> rounds.n_iter_, len(rounds.transduction_)
        (1, 8)
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
        pool_embeddings: np.ndarray | None = None,
    ):
        self.make_student, self.args, self.tokenizer = make_student, args, processing_class
        self.label_names, self.output_dir = label_names, Path(output_dir)
        self.peft_config, self.title = peft_config, title
        self.task = get_task(args.task)
        self.store = RoundStore(self.output_dir)
        self.labeler = PseudoLabeler(
            lambda: make_student(args.seed),
            args,
            processing_class,
            label_names,
            folder=self.output_dir,
            title=title,
            pool_embeddings=pool_embeddings,
        )

    def _prepared(self, rows: Dataset, name: str) -> Dataset:
        """Returns raw rows as trainers prepare them; tokenized ones unchanged."""
        rows = plain_rows(rows, name)
        if name != "pool":
            rows = labeled_rows(rows, self.label_names, name, self.task)
        return self.task.encode(rows, self.tokenizer, self.args.max_length)

    def fit(
        self,
        teachers: PreTrainedModel | Sequence[PreTrainedModel | Teacher],
        labeled: Dataset,
        pool: Dataset,
        *,
        validation: Dataset | None = None,
        votes: Votes | None = None,
        hidden_labels: np.ndarray | None = None,
    ) -> SelfTraining:
        """Runs the rounds, or the remaining ones when `output_dir` holds earlier ones.

        Args:
            teachers (`PreTrainedModel` or a sequence of `PreTrainedModel` or `Teacher`): The first teacher, fine-tuned
                on the labels, or several, whose probabilities are averaged; the teacher of a later round is the
                previous student. A `Teacher` is used as it is, whatever `teacher_probe` says.
            labeled (`Dataset`): Rows of text with `label`, or tokenized ones with `labels`.
            pool (`Dataset`): N rows of text, or tokenized ones; labels in it are not read.
            validation (`Dataset`, *optional*): Rows of text with `label`, or tokenized ones with `labels`, that no
                model is trained on. They measure each student, end the rounds when a student is worse than the
                previous one by more than chance, and fit the temperature before a threshold.
            votes (`Votes`, *optional*): Predictions of the members of the first ensemble for labels that they have not
                seen, which decide their weights and the temperature; by default those for `validation`.
            hidden_labels (`np.ndarray`, *optional*): True labels of the pool where known, else -1, `[N]`; used for the
                records only.

        Raises:
            TrainingError: The pool is empty.
        """
        if len(pool) == 0:
            raise TrainingError(
                "Self-training needs unlabeled rows, got none; add --unlabeled or train on labels only."
            )
        labeled, pool = self._prepared(labeled, "labeled"), self._prepared(pool, "pool")
        validation = None if validation is None else self._prepared(validation, "validation")
        device = self.args.device  # also starts the process group, before the ranks communicate
        self.rounds_ = self.store.records()
        self.class_prior_: np.ndarray | None = None
        self.signals_: EmbeddingSignals | None = None
        self._unit_rows = self.task.unit_rows(len(pool), len(self.label_names))
        self.labeled_iter_ = np.full(len(self._unit_rows), -1)
        self.transduction_: np.ndarray | None = None
        given = list(teachers) if isinstance(teachers, Sequence) else [teachers]
        models = [one.to(device) for one in given if not isinstance(one, Teacher)]  # pyright: ignore[reportArgumentType]
        ready = [one for one in given if isinstance(one, Teacher)]
        self._teachers = [*(self._first_teachers(models, labeled) if models else []), *ready]
        self.student_, self.termination_condition_ = (models or [ready[0].model])[0], ""
        self._votes = votes
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
        """Repeats the last round, with more labels and new teachers.

        The first round's own teachers, which had fewer labels, have no weight in the refit (benchmarks/NOTES.md,
        2026-11-26). The teacher of a later round has half of the weight.

        Args:
            teachers (`Sequence[PreTrainedModel]`): Models that were fine-tuned on `labeled`.
            labeled (`Dataset`): Tokenized rows with `labels`, more than in `fit`.
            pool (`Dataset`): The pool of `fit`.
            folder (`str` or `Path`): Folder of the student; `output_dir` holds the rounds of a finished `fit`.

        Returns:
            The student and its training log.

        Raises:
            TrainingError: There is no round with a student.
        """
        device, records = self.args.device, self.store.records()
        kept = [record["round"] for record in records if is_kept(record)]
        if not kept:
            raise TrainingError("Expected a finished round with pseudo-labels to repeat, found none; run `fit` first.")
        number, first, place = kept[-1], kept[-1] == 0, RoundFolder(Path(folder))
        self._teachers = self._first_teachers([teacher.to(device) for teacher in teachers], labeled)  # pyright: ignore[reportArgumentType]
        found = self.labeler.label(
            self._teachers,
            labeled,
            pool,
            stream="refit",
            title=self.title,
            fraction=self.args.fraction_at(number),
            folder=place.path,
            earlier=None if first else self.store[number].load_ensemble(),
            weights=records[0]["member_weights"],  # the labels that it was fitted on are in `labeled` now
            # A student's predictions were aligned by its own teachers.
            class_prior=None if first else self.store[number].load_labels()[1],
            temperature=records[number]["temperature"],  # a refit has no held-out labels
        )
        place.save_labels(found.labels, found.class_prior)
        return self._train_student(number, self.title, found.labels, labeled, pool, place)

    def describe(self) -> dict[str, Any]:
        """Returns settings and outcome for the report and the card."""
        return {
            "method": type(self).__name__,
            "paper": SelfTrainingObjective.paper,
            "citation": SelfTrainingObjective.citation,
            "rounds_run": self.n_iter_,
            "termination_condition": self.termination_condition_,
        }

    def selected_rows(self) -> np.ndarray:
        """Returns the numbers of the pool's rows that were selected in any round, ascending."""
        return np.unique(self._unit_rows[self.labeled_iter_ >= 0])

    def _first_teachers(self, models: list[PreTrainedModel], labeled: Dataset) -> list[Teacher]:
        """Returns the teachers of the first round, which may predict by probes that are fitted to `labeled`."""
        models = with_soup(models) if self.args.model_soup else models
        return self._ensemble(models, labeled if self.args.teacher_probe else None)

    def _ensemble(self, models: Sequence[PreTrainedModel], labeled: Dataset | None = None) -> list[Teacher]:
        classes, bf16 = len(self.label_names), self.args.bf16
        return form_ensemble(models, labeled, self.tokenizer, num_classes=classes, bf16=bf16, task=self.task)

    def _recall(self, record: dict[str, Any]) -> None:
        """Restores a finished round from disk."""
        place = self.store[record["round"]]
        labels, self.class_prior_ = place.load_labels()
        self._remember(record["round"], labels)
        if is_kept(record):
            self.student_ = place.load_student().to(self.args.device)  # pyright: ignore[reportArgumentType]
            self._teachers = self._ensemble([self.student_])
        if record["selected"]:
            self.curves_ += place.load_curve()
        self.termination_condition_ = record["termination_condition"]
        self.store.tidy(record["round"])  # after a kill the checkpoints may still be there

    def _remember(self, number: int, labels: PseudoLabels) -> None:
        fresh = labels.rows[self.labeled_iter_[labels.rows] < 0]
        self.labeled_iter_[fresh] = number
        self.transduction_ = labels.predicted

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
        found = self._label_pool(number, title, labeled, pool, validation)
        record = describe_round(
            number, found, self.label_names, before=self.transduction_, hidden_labels=hidden_labels, task=self.task
        )
        self._remember(number, found.labels)
        before = self.student_
        if len(found.labels.rows):
            place, notes = self.store[number], health(record)
            self.student_, curve = self._train_student(number, title, found.labels, labeled, pool, place, notes=notes)
            self.curves_ += curve
            self._teachers = self._ensemble([self.student_])
        elif is_main():
            logger.warning("%s selected no rows: the previous student is kept and the rounds end.", title)
        # The verdict, not this loop, compares the first student with the first teacher.
        compared = before if number else self.student_
        record |= measure_student(self.student_, compared, validation, self.tokenizer, self.task)
        record["seconds"] = time.perf_counter() - started
        record["termination_condition"] = termination_condition(record, self.args)
        record = self.store.finish(record)
        if not is_kept(record):
            self.student_ = before
        self.rounds_.append(record)
        self.termination_condition_ = record["termination_condition"]

    def _label_pool(
        self, number: int, title: str, labeled: Dataset, pool: Dataset, validation: Dataset | None
    ) -> LabeledPool:
        """Returns the pseudo-labels for the student of a round, saved in the round's folder."""
        found = self.labeler.label(
            self._teachers,
            labeled,
            pool,
            stream=number,
            title=title,
            fraction=self.args.fraction_at(number),
            folder=self.output_dir,
            held_out=validation,
            votes=self._votes if number == 0 else None,
            first=number == 0,
            class_prior=self.class_prior_,
        )
        self.class_prior_, self.signals_ = found.class_prior, found.signals
        self.store[number].save_labels(found.labels, found.class_prior, found.ensemble)
        return found

    def _train_student(
        self,
        number: int,
        title: str,
        labels: PseudoLabels,
        labeled: Dataset,
        pool: Dataset,
        place: RoundFolder,
        notes: Mapping[str, float] | None = None,
    ) -> tuple[PreTrainedModel, list[dict]]:
        """Trains and saves a student; returns it and its training log, with `notes` in its first entry."""
        seed = derive_seed(self.args.seed, "student", number) % 2**31
        columns = [name for name in pool.column_names if name in self.tokenizer.model_input_names]
        selected = labels.training_rows(pool.select_columns(columns), self.task)  # no label column reaches the student
        fresh = self.args.student_init == "pretrained"
        trainer = SelfTrainingTrainer(
            self.make_student(seed) if fresh else trainable_copy(self._teachers[0].model),
            replace(
                self.args,
                output_dir=str(place.checkpoints),
                seed=seed,
                tensorboard_dir=self.args.tensorboard_dir or str(self.output_dir / "tensorboard"),
            ),
            train_dataset=labeled,
            unlabeled_dataset=selected,
            processing_class=self.tokenizer,
            peft_config=self.peft_config if fresh else None,  # the copy of a teacher already has its adapter
            title=f"{title}: student",
        )
        trainer.notes.update(notes or {})
        trainer.train(resume_from_checkpoint=True)
        curve = [{**entry, "round": number} for entry in trainer.state.log_history]
        place.save_student(trainer.model, self.tokenizer, self.label_names, curve)
        return trainer.model.eval(), curve
