"""The end of the rounds of self-training: every condition, the final student, and a resumed run."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from hfssl.data.tokenization import tokenize_dataset
from hfssl.inference.scoring import predict_logits
from hfssl.methods.self_training.pseudo_labels import PseudoLabels
from hfssl.models.auto import from_pretrained
from hfssl.models.backbones import load_tokenizer
from hfssl.models.checkpoints import save_checkpoint
from hfssl.models.loading import load_classifier
from tests.helpers.rounds_tiny import MAX_LENGTH, POOL_ROWS, digest, run_rounds
from tests.helpers.train_tiny import LABEL_NAMES, make_dataset
from tests.helpers.train_tiny import WORDS as TINY_WORDS


def test_the_rounds_end_with_the_last_that_was_asked_for(undisturbed):
    assert undisturbed.termination_condition_ == "max_rounds"
    assert undisturbed.n_iter_ == len(undisturbed.rounds_) == 2
    assert [record["termination_condition"] for record in undisturbed.rounds_] == ["", "max_rounds"]
    assert undisturbed.rounds_[0]["pool_agreement"] is None
    assert 0 < undisturbed.rounds_[1]["pool_agreement"] < 0.995


def test_the_rounds_end_when_labels_are_stable(tiny_backbone, teacher, undisturbed, tmp_path):
    agreement = undisturbed.rounds_[1]["pool_agreement"]
    stable = run_rounds(tiny_backbone, teacher, tmp_path / "a", rounds=3, stop_agreement=agreement)
    assert (stable.termination_condition_, stable.n_iter_) == ("labels_stable", 2)
    assert stable.rounds_[1]["pool_agreement"] == agreement
    restless = run_rounds(tiny_backbone, teacher, tmp_path / "b", rounds=3, stop_agreement=agreement + 0.01)
    assert restless.n_iter_ == 3


def test_the_rounds_end_when_nothing_is_selected_and_the_teacher_stays(tiny_backbone, teacher, tmp_path, caplog):
    tiny = load_classifier(tiny_backbone, LABEL_NAMES, seed=3)  # never trained: sure of nothing
    save_checkpoint(tiny, load_tokenizer(tiny_backbone), tmp_path / "unsure")
    rounds = run_rounds(tiny_backbone, tmp_path / "unsure", tmp_path / "rounds", selection_strategy="threshold")
    assert (rounds.termination_condition_, rounds.n_iter_) == ("nothing_selected", 1)
    assert digest(rounds.student_) == digest(tiny)
    assert (rounds.labeled_iter_ == -1).all()
    assert len(rounds.transduction_) == POOL_ROWS
    record = rounds.rounds_[0]
    assert (record["selected"], record["mean_weight"], record["pseudo_label_accuracy"]) == (0, 0.0, None)
    assert set(record["per_class"].values()) == {0}
    assert record["validation"] is not None
    again = run_rounds(tiny_backbone, tmp_path / "unsure", tmp_path / "rounds", selection_strategy="threshold")
    assert again.rounds_ == rounds.rounds_
    assert digest(again.student_) == digest(tiny)


def test_the_rounds_end_when_held_out_rows_speak_against_a_student_and_the_one_before_stays(
    tiny_backbone, teacher, tmp_path
):
    """Labels that the first student gives and the second does not: so many rows are not lost by chance."""
    options = {"stop_agreement": 1.0, "student_init": "teacher", "learning_rate": 3e-3, "head_learning_rate": 3e-3}
    free = run_rounds(tiny_backbone, teacher, tmp_path / "free", rounds=2, **options)
    words = np.random.default_rng(0).choice(TINY_WORDS, (300, 6))
    texts, tokenizer = Dataset.from_dict({"text": [" ".join(row) for row in words]}), load_tokenizer(tiny_backbone)
    first, second = (
        predict_logits(
            from_pretrained(free.output_dir / f"round-{number}" / "student"),
            tokenize_dataset(texts, tokenizer, MAX_LENGTH),
            tokenizer,
        ).argmax(axis=-1)
        for number in (0, 1)
    )
    differ = np.flatnonzero(first != second)
    assert len(differ) >= 5

    def run(name: str, lost: int):
        held_out = texts.select(differ[:lost]).add_column("label", first[differ[:lost]].tolist())
        return run_rounds(tiny_backbone, teacher, tmp_path / name, rounds=3, validation=held_out, **options)

    fell = run("a", 5)  # 1 in 32 by chance
    assert (fell.termination_condition_, fell.n_iter_) == ("validation_fell", 2)
    assert [record["validation"]["accuracy"] for record in fell.rounds_] == [1, 0]
    before = digest(from_pretrained(free.output_dir / "round-0" / "student"))
    assert digest(fell.student_) == before
    again = run("a", 5)
    assert again.termination_condition_ == "validation_fell"
    assert digest(again.student_) == before
    assert (again.rounds_, again.curves_) == (fell.rounds_, fell.curves_)
    assert run("b", 4).n_iter_ == 3  # 1 in 16
    pool = tokenize_dataset(make_dataset(POOL_ROWS, labels=False, offset=3), tokenizer, MAX_LENGTH)
    labeled = tokenize_dataset(make_dataset(14, labels=True), tokenizer, MAX_LENGTH)
    fell.refit([from_pretrained(teacher)], labeled, pool, tmp_path / "refit")
    kept, repeated = (
        PseudoLabels.load(folder / "pseudo_labels.npz")[0]
        for folder in (fell.output_dir / "round-0", tmp_path / "refit")
    )
    np.testing.assert_array_equal(kept.predicted, repeated.predicted)  # the round that is repeated has this teacher
