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
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hfssl.adapters import trainable_copy
from hfssl.checkpoints import save_checkpoint
from hfssl.committee import Opinions, Teacher, find_class_shares, form_committee, probe_weight, score_pool
from hfssl.configs import SelfTrainingConfig
from hfssl.errors import TrainingError
from hfssl.files import append_json_line, read_arrays, read_json_lines, write_arrays, write_json_lines
from hfssl.metrics.classification import disagreement, evaluate_probs
from hfssl.modeling import from_pretrained
from hfssl.neighborhood import Neighborhood, asks_around, embed_layers, find_neighborhood
from hfssl.objectives import SelfTrainingObjective
from hfssl.pseudo_labels import PseudoLabels, pseudo_label
from hfssl.ranks import from_main, is_main, wait_for_everyone
from hfssl.scoring import MCDropoutResult, predict_logits
from hfssl.seeding import derive_seed, numpy_generator
from hfssl.trainers import SelfTrainingTrainer

__all__ = ["SelfTraining"]

logger = logging.get_logger(__name__)

OPINIONS, PSEUDO_LABELS, EMBEDDINGS = "opinions.npz", "pseudo_labels.npz", "embeddings.npz"


class SelfTraining:
    """Runs rounds of self-training and keeps the last student.

    Args:
        make_student (`Callable[[int], PreTrainedModel]`): Returns a fresh student for a seed.
        args (`SelfTrainingConfig`): Training arguments of each student, and the settings of the rounds.
        processing_class (`PreTrainedTokenizerBase`): The tokenizer.
        label_names (`list[str]`): K names.
        output_dir (`Path`): Gets `rounds.jsonl` and a folder a round.
        peft_config (*optional*): Adapter settings; each student then is a fresh adapter.
        title (`str`): Names the progress bars.

    Attributes:
        student_: The last round's student.
        transduction_: `[N]` label of each row of the pool, by the last teacher that looked at it.
        labeled_iter_: `[N]` first round in which a row was taught from; -1 for never.
        n_iter_: Rounds that were run.
        class_shares_: `[K]` shares that the pool's labels were brought to, found in the first round; `None` for none.
        neighborhood_: What the backbone's embeddings say of the pool; `None` where no setting asks for it.
        termination_condition_: `"max_rounds"`, `"labels_stable"` or `"nothing_selected"`.
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
            validation: Tokenized rows with `labels`, measured after each round and never trained on.
            hidden_labels: `[N]` true labels of the pool where known, else -1; used for the records only.
        """
        if len(pool) == 0:
            raise TrainingError(
                "Self-training needs unlabeled rows, got none; add --unlabeled or train on labels only."
            )
        device = self.args.device  # also starts the process group, before the ranks talk
        self.rounds_: list[dict] = from_main(read_json_lines(self.output_dir / "rounds.jsonl"))
        self.class_shares_: np.ndarray | None = None
        self.neighborhood_: Neighborhood | None = None
        self.probe_weight_ = 0.0
        self.labeled_iter_ = np.full(len(pool), -1)
        self.transduction_: np.ndarray | None = None
        teachers = list(teachers) if isinstance(teachers, Sequence) else [teachers]
        teachers = [teacher.to(device) for teacher in teachers]
        self._teachers = self._committee(teachers, labeled)
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
        taught = [record["round"] for record in records if record["selected"]]
        if not taught:
            raise TrainingError("Expected a finished round with pseudo-labels to repeat, found none; run `fit` first.")
        last, place = taught[-1], self._round_dir(taught[-1])
        self.probe_weight_ = records[0]["probe_weight"]  # the labels that it rests on are among `labeled` now
        around = self._look_around(labeled, pool, None, folder)
        self._teachers = self._committee([teacher.to(self.args.device) for teacher in teachers], labeled)
        opinions = self._opinions(self._score(self._teachers, pool, "refit", self.title), around)
        if last == 0:
            shares = find_class_shares(opinions, labeled["labels"][:], self.args.alignment, self.probe_weight_)
        else:  # what a student finds is what its own teachers made of the shares
            opinions = Opinions.load(place / OPINIONS).beside(opinions)
            shares = PseudoLabels.load(place / PSEUDO_LABELS)[1].get("class_shares")
        labels = self._select(opinions, "refit", around, shares, fraction=self._fraction(last))
        if is_main():
            labels.save(folder / PSEUDO_LABELS, class_shares=shares)
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
        self.class_shares_ = beside.get("class_shares")
        if record["selected"]:
            self.student_ = from_pretrained(self._round_dir(number) / "student").to(self.args.device)
            self._teachers = self._committee([self.student_])
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
        folder = self._round_dir(number)
        title = f"{self.title}, round {number + 1} of {self.args.rounds}"
        around = self.neighborhood_ = self._look_around(labeled, pool, validation, self.output_dir)
        results = self._score(self._teachers, pool, number, title)
        if number == 0:
            self.probe_weight_ = probe_weight(around, self._teachers, validation, self.tokenizer)
        # Later teachers have learned what the backbone says, and the pool stays what it is.
        opinions = self._opinions(results, around if number == 0 else None)
        if number == 0:
            self.class_shares_ = find_class_shares(
                opinions, labeled["labels"][:], self.args.alignment, self.probe_weight_
            )
        labels = self._select(opinions, number, around, self.class_shares_, fraction=self._fraction(number))
        if is_main():
            opinions.save(folder / OPINIONS)
            labels.save(folder / PSEUDO_LABELS, class_shares=self.class_shares_)
        record = self._describe(number, labels, hidden_labels)
        record["teacher_disagreement"] = disagreement(opinions.teacher_probs.argmax(axis=-1))
        self._remember(number, labels.rows, labels.predicted)
        if len(labels.rows):
            self.student_, curve = self._train_student(
                number, title, labels, labeled, pool, folder, notes=_health(record)
            )
            self.curves_ += curve
            self._teachers = self._committee([self.student_])
        elif is_main():
            logger.warning("%s selected no rows: the previous student is kept and the rounds end.", title)
        record["validation"] = self._measure(validation)
        record["seconds"] = time.perf_counter() - started
        record["termination_condition"] = self._termination(record)
        record = from_main(record)  # the seconds differ
        wait_for_everyone()  # no rank needs the checkpoints any more
        if is_main():
            append_json_line(self.output_dir / "rounds.jsonl", record)
            self._tidy(number)
        self.rounds_.append(record)
        self.termination_condition_ = record["termination_condition"]
        wait_for_everyone()  # whoever goes on finds the round on disk

    def _fraction(self, number: int) -> float:
        """Share of the pool that a round draws: easy rows first, harder ones later (Bengio et al. 2009)."""
        first, last = self.args.selection_fraction, self.args.last_selection_fraction
        if last is None or self.args.rounds == 1:
            return first
        return first + (last - first) * number / (self.args.rounds - 1)

    def _look_around(
        self, labeled: Dataset, pool: Dataset, validation: Dataset | None, folder: Path
    ) -> Neighborhood | None:
        """What the backbone's embeddings say of the pool: the same in every round, so it is found once and kept."""
        args, path = self.args, folder / "neighborhood.npz"
        if not asks_around(args):
            return None
        around = from_main(Neighborhood.load(path))
        if around is None:
            encoder = self.make_student(args.seed).to(args.device)
            found = find_neighborhood(
                encoder,
                labeled,
                self._embedded(encoder, pool),
                self.tokenizer,
                num_classes=len(self.label_names),
                graph=args.graph != "none",
                label_names=self.label_names if args.label_name_prior else None,
                probe=args.frozen_probe,
                held_out=validation,
                neighbors=args.neighbor_smoothing > 0,
                bf16=args.bf16,
                seed=derive_seed(args.seed, "graph") % 2**31,
                title=self._shown(self.title),
            )
            around = from_main(found)
            if is_main():
                around.save(path)
            if around.alarming:
                logger.warning(
                    "%.0f%% of the pool is unlike all labeled rows (5%% would be usual): %s.",
                    100 * around.novel.mean(),
                    "these rows get no weight" if args.filter_novel else "check that it is the right pool",
                )
        return around

    def _embedded(self, encoder: PreTrainedModel, pool: Dataset) -> np.ndarray:
        """The pool's embeddings by the backbone, which a refit finds on disk."""
        args, path = self.args, self.output_dir / EMBEDDINGS
        kept = from_main(read_arrays(path)["layers"] if path.exists() else None)
        if kept is None:
            progress = self._shown(f"{self.title}: embedding the pool")
            found = embed_layers(
                encoder, pool, self.tokenizer, probe=args.frozen_probe, bf16=args.bf16, progress=progress
            )
            kept = from_main(found)
            if is_main():
                write_arrays(path, {"layers": kept})
        if kept.shape[1] != len(pool):
            raise TrainingError(
                f"Expected the pool of {kept.shape[1]} rows that {self.output_dir} was begun with, got {len(pool)} "
                "rows: give the same pool, or another output_dir."
            )
        return kept

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

    def _opinions(self, results: Sequence[MCDropoutResult], around: Neighborhood | None) -> Opinions:
        return Opinions.of(results, around, self.probe_weight_, self.args.neighbor_smoothing)

    def _select(
        self,
        opinions: Opinions,
        stream: str | int,
        around: Neighborhood | None,
        shares: np.ndarray | None,
        *,
        fraction: float,
    ) -> PseudoLabels:
        generator = numpy_generator(self.args.seed, "selection", stream)
        return from_main(
            pseudo_label(opinions.joined, self.args, generator, shares, fraction=fraction, neighborhood=around)
        )

    def _shown(self, title: str) -> str | None:
        return None if self.args.disable_tqdm or not is_main() else title

    def _describe(self, number: int, labels: PseudoLabels, hidden_labels: np.ndarray | None) -> dict[str, Any]:
        """What a reader of `rounds.jsonl` wants to know about the pseudo-labels; hidden labels are used here only."""
        rows, predicted = labels.rows, labels.predicted
        counts = np.bincount(predicted[rows], minlength=len(self.label_names))
        accuracy = None
        if hidden_labels is not None and (hidden_labels[rows] >= 0).any():
            known = rows[hidden_labels[rows] >= 0]
            accuracy = float((predicted[known] == hidden_labels[known]).mean())
        shares = self.class_shares_
        agreement = None if self.transduction_ is None else float((self.transduction_ == predicted).mean())
        return {
            "round": number,
            "selected": len(rows),
            "per_class": dict(zip(self.label_names, counts.tolist(), strict=True)),
            "novel_share": None if self.neighborhood_ is None else float(self.neighborhood_.novel.mean()),
            "graph_trust": None if self.neighborhood_ is None else self.neighborhood_.trust,
            "probe_weight": self.probe_weight_ if number == 0 else 0.0,
            "label_name_strength": None if self.neighborhood_ is None else self.neighborhood_.name_strength,
            "class_shares": None if shares is None else dict(zip(self.label_names, shares.tolist(), strict=True)),
            "mean_weight": float(labels.weights.mean()) if len(rows) else 0.0,
            "mean_bald": float(labels.bald.mean()),
            "pool_agreement": agreement,
            "pseudo_label_accuracy": accuracy,
        }

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
        fresh = self.args.student_start == "pretrained"
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

    def _measure(self, validation: Dataset | None) -> dict[str, float] | None:
        if validation is None or len(validation) == 0:
            return None
        logits = torch.from_numpy(predict_logits(self.student_, validation, self.tokenizer))
        return evaluate_probs(logits.softmax(-1).numpy(), np.array(validation["labels"]))

    def _termination(self, record: dict[str, Any]) -> str:
        """Why the rounds end after this one, or an empty string."""
        if record["selected"] == 0:
            return "nothing_selected"
        if record["pool_agreement"] is not None and record["pool_agreement"] >= self.args.stop_agreement:
            return "labels_stable"
        return "max_rounds" if record["round"] + 1 >= self.args.rounds else ""


def _health(record: Mapping[str, Any]) -> dict[str, float]:
    """What a round's record says in numbers before its student is trained, for whoever watches."""
    numbers = {name: value for name, value in record.items() if isinstance(value, int | float) and name != "round"}
    return {f"round/{name}": value for name, value in numbers.items()}
