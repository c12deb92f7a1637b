"""Rounds of self-training: kills and ranks change nothing; the fitted attributes; pools of every kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from hfssl.errors import TrainingError
from hfssl.models.auto import from_pretrained
from hfssl.runtime.files import read_json_lines
from tests.helpers import ROOT
from tests.helpers.ranks import logs, run_ranks
from tests.helpers.rounds_tiny import POOL_ROWS, digest, hidden_labels, rounds_that_die, run_rounds
from tests.helpers.train_tiny import LABEL_NAMES, make_dataset
from tests.helpers.train_tiny import WORDS as TINY_WORDS


def without_seconds(records):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def temporary_files(folder):
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


# --- kills -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "number", "lines"),
    [
        ("mid_step", 1, 1),
        ("after_pseudo_labels", 0, 0),
        ("after_pseudo_labels", 1, 1),
        ("before_the_line", 0, 0),
        ("after_the_line", 0, 1),
        ("after_the_line", 1, 2),
    ],
)
def test_killed_and_resumed_gives_the_same_bits(tiny_backbone, teacher, undisturbed, tmp_path, at, number, lines):
    folder = tmp_path / "rounds"
    kill = {"at": at, "round": number, "rank": 0}
    codes = run_ranks(rounds_that_die, kill, str(tiny_backbone), str(teacher), str(folder), {}, log_dir=tmp_path)
    assert codes == [-9], logs(tmp_path)
    assert len(read_json_lines(folder / "rounds.jsonl")) == lines
    resumed = run_rounds(tiny_backbone, teacher, folder, hidden=hidden_labels())
    assert digest(resumed.student_) == digest(undisturbed.student_)
    assert without_seconds(resumed.rounds_) == without_seconds(undisturbed.rounds_)
    assert without_seconds(read_json_lines(folder / "rounds.jsonl")) == without_seconds(undisturbed.rounds_)
    np.testing.assert_array_equal(resumed.transduction_, undisturbed.transduction_)
    np.testing.assert_array_equal(resumed.labeled_iter_, undisturbed.labeled_iter_)
    assert not temporary_files(folder)
    assert not list(folder.glob("round-*/checkpoints"))  # large, and of no use once the student is saved


def test_finished_rounds_are_not_run_again(tiny_backbone, teacher, tmp_path):
    first = run_rounds(tiny_backbone, teacher, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = run_rounds(tiny_backbone, teacher, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert again.rounds_ == first.rounds_
    assert again.curves_ == first.curves_
    assert digest(again.student_) == digest(first.student_)


# --- ranks -----------------------------------------------------------------------------------------------------------


@pytest.mark.distributed
@pytest.mark.parametrize("lora", [False, True])
def test_two_ranks_killed_at_every_turn_and_resumed_give_the_same_bits(tiny_backbone, teacher, tmp_path, lora):
    options = {"lora": lora, "per_device_train_batch_size": 2, "retrain_head": True}

    def run(name, kill=None):
        folder = tmp_path / name
        args = (kill, str(tiny_backbone), str(teacher), str(folder), options)
        codes = run_ranks(rounds_that_die, *args, log_dir=tmp_path / "logs", ranks=2)
        assert (codes == [0, 0]) == (kill is None), logs(tmp_path / "logs")
        assert kill is None or -9 in codes, logs(tmp_path / "logs")
        return folder

    whole = run("whole")
    kills = [("after_pseudo_labels", 0, 0), ("after_the_line", 0, 0), ("mid_step", 1, 1), ("before_the_line", 1, 0)]
    for at, number, rank in kills[2:3] if lora else kills:
        killed = run("killed", {"at": at, "round": number, "rank": rank})
        assert not (killed / "rank-0.json").exists()
    run("killed")
    expected = json.loads((whole / "rank-0.json").read_text())
    for folder in (whole, killed):
        held = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
        assert held[0] == held[1]  # the ranks agree in everything, the seconds included
        assert held[0] | {"rounds": None} == expected | {"rounds": None}
        assert without_seconds(held[0]["rounds"]) == without_seconds(expected["rounds"])
        assert [path.name for path in folder.rglob("rounds.jsonl")] == ["rounds.jsonl"]
        assert read_json_lines(folder / "rounds.jsonl") == held[0]["rounds"]
        assert [record["round"] for record in held[0]["rounds"]] == [0, 1]
        assert not temporary_files(folder)
        assert not list(folder.glob("round-*/checkpoints"))
        assert digest(from_pretrained(folder / "round-1" / "student")) == expected["digest"]


@pytest.mark.distributed
@pytest.mark.parametrize("rows", [POOL_ROWS, 1])
def test_two_ranks_choose_what_one_rank_chooses(tiny_backbone, teacher, tmp_path, rows):
    """The first round's pseudo-labels depend on teacher, pool and seed alone; a pool of one row serves two ranks."""
    options = {"rounds": 1, "max_steps": 2, "pool_rows": rows, "selection_strategy": "easy" if rows > 1 else "all"}
    run_rounds(tiny_backbone, teacher, tmp_path / "one", **options)
    args = (None, str(tiny_backbone), str(teacher), str(tmp_path / "two"), options)
    assert run_ranks(rounds_that_die, *args, log_dir=tmp_path, ranks=2) == [0, 0], logs(tmp_path)
    one, two = (np.load(tmp_path / name / "round-0" / "pseudo_labels.npz") for name in ("one", "two"))
    assert one.files == two.files
    for name in one.files:
        np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.distributed
def test_the_recipe_under_torchrun(tiny_backbone, tmp_path):
    table = tmp_path / "table.csv"
    texts = make_dataset(60, labels=True)
    lines = [f"{text} {i},{LABEL_NAMES[i % 3]}\n" for i, text in enumerate(texts["text"])]
    table.write_text("text,label\n" + "".join(lines), encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    recipe = [str(ROOT / "recipes/train.py"), "--config", str(ROOT / "recipes/self_training/trec6.yaml")]
    options = ["--train", str(table), "--test=", "--backbone", str(tiny_backbone), "--use_cpu", "true"]
    options += ["--labels_per_class", "4", "--max_steps", "3", "--per_device_train_batch_size", "2", "--rounds", "2"]
    options += ["--max_length", "16", "--output_dir", str(tmp_path / "out"), "--stop_agreement", "1.0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*launch, *recipe, *options], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Model:") == 1  # only one rank speaks
    records = read_json_lines(tmp_path / "out" / "rounds" / "rounds.jsonl")
    assert [record["round"] for record in records] == list(range(len(records)))
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rounds"] == records
    assert not temporary_files(tmp_path / "out")
    model = from_pretrained(tmp_path / "out" / "model")
    last = from_pretrained(tmp_path / "out" / "rounds" / f"round-{len(records) - 1}" / "student")
    assert digest(model) == digest(last)


# --- invariants ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lora": True},
        {"mc_passes": 1},
        {"mc_passes": 0, "selection_strategy": "all", "weighting": "uniform", "knn_smoothing": 0.3},
        {"selection_strategy": "top_k", "soft_targets": True, "weighting": "confidence"},
        {
            "distribution_alignment": "estimated",
            "soft_targets": True,
            "weighting": "uniform",
            "freeze_embeddings": True,
        },
        {"distribution_alignment": "predicted", "soft_targets": True},
        {"distribution_alignment": "labeled", "selection_strategy": "uniform"},
    ],
    ids=["full", "lora", "one_pass", "no_pass", "soft", "estimated", "predicted", "labeled"],
)
def test_fitted_attributes_tell_what_was_taught(tiny_backbone, teacher, undisturbed, tmp_path, options):
    rounds = (
        run_rounds(tiny_backbone, teacher, tmp_path, hidden=hidden_labels(), **options) if options else undisturbed
    )
    saved = [np.load(rounds.output_dir / f"round-{i}" / "pseudo_labels.npz") for i in range(rounds.n_iter_)]
    assert rounds.transduction_.shape == rounds.labeled_iter_.shape == (POOL_ROWS,)
    np.testing.assert_array_equal(rounds.transduction_, saved[-1]["predicted"])
    first = np.full(POOL_ROWS, -1)
    for i, (labels, record) in enumerate(zip(saved, rounds.rounds_, strict=True)):
        rows, predicted = labels["rows"], labels["predicted"]
        first[[row for row in rows if first[row] < 0]] = i
        assert len(set(rows)) == len(rows) == record["selected"] == sum(record["per_class"].values()) > 0
        assert list(record["per_class"].values()) == np.bincount(predicted[rows], minlength=3).tolist()
        assert record["mean_weight"] == pytest.approx(labels["weights"].mean()) == pytest.approx(1, abs=1e-5)
        known = [row for row in rows if hidden_labels()[row] >= 0]
        right = [predicted[row] == hidden_labels()[row] for row in known]
        assert record["pseudo_label_accuracy"] == pytest.approx(np.mean(right))
        assert set(record["validation"]) == {"accuracy", "macro_f1", "nll", "ece"}
    np.testing.assert_array_equal(rounds.labeled_iter_, first)
    assert {entry["round"] for entry in rounds.curves_} == {0, 1}
    if options.get("mc_passes") in (0, 1):
        assert all(record["mean_bald"] == 0 for record in rounds.rounds_)  # one pass cannot disagree with itself


def test_hidden_labels_are_for_the_record_only_and_validation_teaches_nothing(
    tiny_backbone, teacher, undisturbed, tmp_path
):
    shuffled = np.random.default_rng(0).permutation(hidden_labels())
    rounds = run_rounds(tiny_backbone, teacher, tmp_path, hidden=shuffled, validation=False)
    assert digest(rounds.student_) == digest(undisturbed.student_)
    for record, other in zip(rounds.rounds_, undisturbed.rounds_, strict=True):
        assert record["validation"] is None
        for key in ("selected", "per_class", "mean_weight", "mean_bald", "pool_agreement"):
            assert record[key] == other[key]
    accuracies = [[r["pseudo_label_accuracy"] for r in run.rounds_] for run in (rounds, undisturbed)]
    assert accuracies[0] != accuracies[1]


def test_the_student_learns_the_pseudo_label_and_not_the_label_in_the_pool(tiny_backbone, teacher, tmp_path):
    without, with_labels = (
        run_rounds(tiny_backbone, teacher, tmp_path / str(labels), pool_labels=labels, rounds=1)
        for labels in (False, True)
    )
    assert digest(with_labels.student_) == digest(without.student_)


@pytest.mark.parametrize("draw", ["all", "easy"])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_pool_smaller_than_the_batch(tiny_backbone, teacher, tmp_path, rows, draw):
    rounds = run_rounds(
        tiny_backbone, teacher, tmp_path, pool_rows=rows, selection_strategy=draw, selection_fraction=1.0
    )
    assert rounds.transduction_.shape == (rows,)
    if draw == "all":
        assert [record["selected"] for record in rounds.rounds_] == [rows] * rounds.n_iter_
        assert (rounds.labeled_iter_ == 0).all()


@pytest.mark.parametrize(
    "options",
    [{}, {"selection_strategy": "all", "distribution_alignment": "estimated"}, {"label_spreading": "agreement"}],
)
def test_a_pool_of_one_text_is_one_class_with_equal_embeddings(tiny_backbone, teacher, tmp_path, options):
    texts = ["the film was great fun"] * 12
    rounds = run_rounds(tiny_backbone, teacher, tmp_path, pool_texts=texts, soft_targets=True, **options)
    assert len(set(rounds.transduction_)) == 1
    assert rounds.rounds_[0]["selected"] > 0
    saved = np.load(tmp_path / "round-0" / "pseudo_labels.npz")
    assert np.isfinite(saved["weights"]).all()
    assert np.isfinite(saved["target_probs"]).all()


def test_a_pool_that_is_mostly_of_another_kind_is_flagged_and_those_rows_lose_their_weight(
    tiny_backbone, teacher, tmp_path, caplog
):
    generator = np.random.default_rng(0)

    def texts(count: int, words: list[str]) -> list[str]:
        return [" ".join(generator.choice(words, size=8)) for _ in range(count)]

    alien = "red blue green fast slow up down one two three river city year name person".split()
    settings = {
        "labeled_texts": texts(60, TINY_WORDS),
        "selection_strategy": "all",
        "rounds": 1,
        "weighting": "uniform",
    }
    pool = texts(36, alien) + texts(4, TINY_WORDS)
    rounds = run_rounds(tiny_backbone, teacher, tmp_path / "a", pool_texts=pool, ood_filter=True, **settings)
    assert "of the pool is unlike all labeled rows" in caplog.text
    assert rounds.rounds_[0]["ood_fraction"] > 0.3
    weights = np.load(tmp_path / "a" / "round-0" / "pseudo_labels.npz")["weights"]
    assert weights[36:].mean() > 1.5 * weights[:36].mean()
    usual = texts(40, TINY_WORDS)
    rounds = run_rounds(tiny_backbone, teacher, tmp_path / "b", pool_texts=usual, ood_filter=True, **settings)
    assert rounds.rounds_[0]["ood_fraction"] < 0.3
    np.testing.assert_allclose(np.load(tmp_path / "b" / "round-0" / "pseudo_labels.npz")["weights"], 1)


def test_an_empty_pool_is_refused_in_one_sentence(tiny_backbone, teacher, tmp_path):
    with pytest.raises(TrainingError, match="needs unlabeled rows, got none"):
        run_rounds(tiny_backbone, teacher, tmp_path, pool_rows=0)
    assert list(tmp_path.iterdir()) == []
