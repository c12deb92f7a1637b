"""Rounds of self-training: kills and ranks change nothing, every way to end, what the fitted attributes promise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from ranks import logs, run_ranks
from rounds_tiny import MAX_LENGTH, POOL_ROWS, digest, hidden_labels, rounds_that_die, run_rounds
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from train_tiny import LABEL_NAMES, make_dataset
from train_tiny import WORDS as TINY_WORDS

from hfssl.backbones import load_tokenizer
from hfssl.calibration import fit_temperature
from hfssl.checkpoints import save_checkpoint
from hfssl.configs import ACQUISITION_NAMES, DRAW_NAMES, SelfTrainingConfig, SupervisedConfig
from hfssl.data.streams import tokenize_dataset
from hfssl.errors import ConfigurationError, TrainingError
from hfssl.files import read_json_lines
from hfssl.heads import confidence_scale, logit_layer, soft_logistic_weights
from hfssl.modeling import from_pretrained, load_classifier
from hfssl.pseudo_labels import PseudoLabels, pseudo_label
from hfssl.scoring import head_inputs, mean_embeddings, predict_logits
from hfssl.selection import ACQUISITIONS, DRAWS, quotas
from hfssl.trainers import SupervisedTrainer

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def teacher(tiny_backbone, tmp_path_factory):
    """A folder with a classifier that predicts each class for some rows of the pool."""
    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = load_tokenizer(tiny_backbone)
    trainer = SupervisedTrainer(
        load_classifier(tiny_backbone, LABEL_NAMES, seed=3),
        SupervisedConfig(
            output_dir=str(folder / "checkpoints"),
            max_steps=40,
            learning_rate=3e-3,
            head_learning_rate=3e-3,
            max_length=MAX_LENGTH,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=make_dataset(11, labels=True),
        processing_class=tokenizer,
    )
    trainer.train()
    save_checkpoint(trainer.model, tokenizer, folder / "model", LABEL_NAMES)
    return folder / "model"


@pytest.fixture(scope="module")
def undisturbed(tiny_backbone, teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return run_rounds(tiny_backbone, teacher, folder, hidden=hidden_labels())


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
    options = {"lora": lora, "per_device_train_batch_size": 2, "refit_head": True}

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
    options = {"rounds": 1, "max_steps": 2, "pool_rows": rows, "draw": "easy" if rows > 1 else "all"}
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


# --- ends ------------------------------------------------------------------------------------------------------------


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
    rounds = run_rounds(tiny_backbone, tmp_path / "unsure", tmp_path / "rounds", draw="threshold")
    assert (rounds.termination_condition_, rounds.n_iter_) == ("nothing_selected", 1)
    assert digest(rounds.student_) == digest(tiny)
    assert (rounds.labeled_iter_ == -1).all()
    assert len(rounds.transduction_) == POOL_ROWS
    record = rounds.rounds_[0]
    assert (record["selected"], record["mean_weight"], record["pseudo_label_accuracy"]) == (0, 0.0, None)
    assert set(record["per_class"].values()) == {0}
    assert record["validation"] is not None
    again = run_rounds(tiny_backbone, tmp_path / "unsure", tmp_path / "rounds", draw="threshold")
    assert again.rounds_ == rounds.rounds_
    assert digest(again.student_) == digest(tiny)


def test_the_rounds_end_when_held_out_rows_speak_against_a_student_and_the_one_before_stays(
    tiny_backbone, teacher, tmp_path
):
    """Labels that the first student gives and the second does not: so many rows are not lost by chance."""
    options = {"stop_agreement": 1.0, "student_start": "teacher", "learning_rate": 3e-3, "head_learning_rate": 3e-3}
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


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path):
    common = {"draw": "all", "selection_fraction": 1.0, "soft_targets": True, "weighting": "uniform"}
    return lambda **given: SelfTrainingConfig(output_dir=str(tmp_path), use_cpu=True, **(common | given))


def test_the_shares_are_found_once_and_remembered(tiny_backbone, teacher, tmp_path):
    found = run_rounds(tiny_backbone, teacher, tmp_path / "a", alignment="estimated", soft_targets=True)
    assert found.class_shares_.sum() == pytest.approx(1)
    assert [list(record["class_shares"].values()) for record in found.rounds_] == [found.class_shares_.tolist()] * 2
    again = run_rounds(tiny_backbone, teacher, tmp_path / "a", alignment="estimated", soft_targets=True)
    np.testing.assert_array_equal(again.class_shares_, found.class_shares_)
    labeled = run_rounds(tiny_backbone, teacher, tmp_path / "b", alignment="labeled", rounds=1)
    assert labeled.class_shares_.tolist() != found.class_shares_.tolist()
    assert run_rounds(tiny_backbone, teacher, tmp_path / "c", rounds=1).rounds_[0]["class_shares"] is None


def test_shares_that_are_given_are_those_of_the_labels_that_are_taught(tiny_backbone, teacher, tmp_path):
    options = {"class_shares": "plot=2, bad=1, good=1", "soft_targets": True, "draw": "all", "weighting": "uniform"}
    rounds = run_rounds(tiny_backbone, teacher, tmp_path, rounds=1, **options)
    assert rounds.rounds_[0]["class_shares"] == {"bad": 0.25, "good": 0.25, "plot": 0.5}
    taught = PseudoLabels.load(tmp_path / "round-0" / "pseudo_labels.npz")[0]
    np.testing.assert_allclose(taught.target_probs.mean(axis=0), [0.25, 0.25, 0.5], atol=1e-4)
    with pytest.raises(ConfigurationError, match="one number above 0 for each class, such as 'bad=1, good=1, plot=1'"):
        run_rounds(tiny_backbone, teacher, tmp_path, rounds=1, class_shares="bad=1, good=1")


def test_a_threshold_comes_after_a_temperature_that_is_fitted_on_held_out_labels(tiny_backbone, teacher, tmp_path):
    """Of labels that the teacher gets all wrong the temperature is high, and nothing is sure enough any more."""
    tokenizer, model = load_tokenizer(tiny_backbone), from_pretrained(teacher)
    texts = make_dataset(12, labels=False, offset=5)
    logits = predict_logits(model, tokenize_dataset(texts, tokenizer, MAX_LENGTH), tokenizer)
    pool = tokenize_dataset(make_dataset(POOL_ROWS, labels=False, offset=3), tokenizer, MAX_LENGTH)
    of_pool = predict_logits(model, pool, tokenizer)
    threshold = float(np.median(softmax(of_pool, axis=-1).max(axis=-1)))
    options = {"draw": "threshold", "confidence_threshold": threshold, "rounds": 1}

    def run(name: str, labels: np.ndarray | None):
        held_out = False if labels is None else texts.add_column("label", labels.tolist())
        return run_rounds(tiny_backbone, teacher, tmp_path / name, validation=held_out, **options).rounds_[0]

    alone = run("a", None)
    assert alone["temperature"] == 1
    assert alone["selected"] == (softmax(of_pool, axis=-1).max(axis=-1) >= threshold).sum() > 0
    wrong = logits.argmin(axis=-1)
    doubted = run("b", wrong)
    assert doubted["temperature"] == pytest.approx(fit_temperature(logits, wrong), rel=1e-4)
    assert doubted["temperature"] > 1
    confidence = softmax(of_pool / doubted["temperature"], axis=-1).max(axis=-1)
    assert doubted["selected"] == (confidence >= threshold).sum() < alone["selected"]


def test_the_curriculum_draws_more_from_round_to_round(tiny_backbone, teacher, tmp_path):
    options = {"draw": "top_k", "selection_fraction": 0.2, "last_selection_fraction": 0.6, "rounds": 3, "max_steps": 2}
    rounds = run_rounds(tiny_backbone, teacher, tmp_path, stop_agreement=1.0, **options)
    assert [rounds._fraction(number) for number in range(3)] == pytest.approx([0.2, 0.4, 0.6])
    for record in rounds.rounds_:  # a class with too few candidates gives what it has
        candidates = np.load(tmp_path / f"round-{record['round']}" / "pseudo_labels.npz")["predicted"]
        quota = quotas(round(rounds._fraction(record["round"]) * POOL_ROWS), 3)
        assert record["selected"] == np.minimum(np.bincount(candidates, minlength=3), quota).sum()


@pytest.mark.parametrize("graph", ["agreement", "certainty", "labels"])
def test_the_neighbourhood_is_asked_once_and_kept(tiny_backbone, teacher, tmp_path, monkeypatch, graph):
    rounds = run_rounds(tiny_backbone, teacher, tmp_path, graph=graph, filter_novel=True, soft_targets=True)
    found = rounds.neighborhood_
    assert found.probs.shape == (POOL_ROWS, 3)
    assert found.novel.shape == found.certainty.shape == (POOL_ROWS,)
    assert [record["graph_trust"] for record in rounds.rounds_] == [found.trust] * rounds.n_iter_
    (tmp_path / "round-1").rename(tmp_path / "gone")
    lines = (tmp_path / "rounds.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "rounds.jsonl").write_text(lines[0])
    monkeypatch.setattr("hfssl.rounds.find_neighborhood", lambda *a, **k: pytest.fail("asked a second time"))
    again = run_rounds(tiny_backbone, teacher, tmp_path, graph=graph, filter_novel=True, soft_targets=True)
    assert digest(again.student_) == digest(rounds.student_)


def test_the_first_teachers_may_speak_through_the_means_over_their_tokens(tiny_backbone, teacher, tmp_path):
    """In round 1 by logistic regression on these means, in round 2 the student by its own head."""
    run_rounds(tiny_backbone, teacher, tmp_path, teacher_probe=True, mc_passes=0, draw="all", weighting="uniform")
    tokenizer, model = load_tokenizer(tiny_backbone), from_pretrained(teacher)
    labeled, pool = (
        tokenize_dataset(make_dataset(rows, labels=known, offset=offset), tokenizer, MAX_LENGTH)
        for rows, known, offset in ((11, True, 0), (POOL_ROWS, False, 3))
    )
    known, unknown = (normalize(mean_embeddings(model, rows, tokenizer)) for rows in (labeled, pool))
    center = known.mean(axis=0)
    scale = np.sqrt(np.square(known - center).sum(axis=1).mean())
    peer = LogisticRegression(C=10.0, max_iter=1000).fit((known - center) / scale, labeled["labels"][:])
    first, second = (np.load(tmp_path / f"round-{number}" / "opinions.npz")["teacher_probs"][0] for number in (0, 1))
    np.testing.assert_allclose(first, peer.predict_proba((unknown - center) / scale), atol=1e-3)
    by_head = softmax(predict_logits(model, pool, tokenizer), axis=-1)
    assert np.abs(first - by_head).max() > 0.01
    student = from_pretrained(tmp_path / "round-0" / "student")
    np.testing.assert_allclose(second, softmax(predict_logits(student, pool, tokenizer), axis=-1), atol=1e-5)


def test_a_refit_finds_the_pools_embeddings_and_leaves_the_old_teachers_out(
    tiny_backbone, teacher, tmp_path, monkeypatch
):
    """After one round it learns what new teachers say beside the new probe, and nothing else."""
    rounds = run_rounds(tiny_backbone, teacher, tmp_path / "rounds", rounds=1, frozen_probe=True, soft_targets=True)
    more = tokenize_dataset(make_dataset(14, labels=True), load_tokenizer(tiny_backbone), MAX_LENGTH)
    pool = tokenize_dataset(make_dataset(POOL_ROWS, labels=False, offset=3), load_tokenizer(tiny_backbone), MAX_LENGTH)
    monkeypatch.setattr("hfssl.rounds.embed_layers", lambda *a, **k: pytest.fail("embedded a second time"))
    of_rounds = np.load(tmp_path / "rounds/round-0/opinions.npz")
    new_teachers = [load_classifier(tiny_backbone, LABEL_NAMES, seed=seed) for seed in (5, 6)]
    opinions = []
    monkeypatch.setattr(
        "hfssl.rounds.pseudo_label", lambda joined, *a, **k: opinions.append(joined) or pseudo_label(joined, *a, **k)
    )
    student, curve = rounds.refit(new_teachers, more, pool, tmp_path / "refit")
    assert (tmp_path / "refit/pseudo_labels.npz").exists()
    assert curve
    logits = [predict_logits(model, pool, load_tokenizer(tiny_backbone)) for model in new_teachers]
    said = np.mean([softmax(values, axis=-1) for values in logits], axis=0)
    probe = np.load(tmp_path / "refit/neighborhood.npz")["probe_probs"]
    expected = (1 - rounds.probe_weight_) * said + rounds.probe_weight_ * probe
    np.testing.assert_allclose(opinions[0].deterministic_probs, expected, atol=1e-5)
    assert np.abs(of_rounds["deterministic_probs"] - expected).max() > 0.01
    assert digest(student) != digest(rounds.student_)
    with pytest.raises(TrainingError, match="Expected the pool of 40 rows that .* was begun with, got 39 rows"):
        rounds.refit(new_teachers, more, pool.select(range(39)), tmp_path / "other")


def opinion(model) -> list[float]:
    """What a model says of one text."""
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.inference_mode():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].tolist()


@pytest.mark.parametrize("lora", [False, True])
def test_a_student_may_start_from_its_teacher(tiny_backbone, teacher, tmp_path, lora):
    """Steps of next to no length leave a student where it starts."""
    if lora:
        tokenizer = load_tokenizer(tiny_backbone)
        learned = run_rounds(tiny_backbone, teacher, tmp_path / "first", lora=True, rounds=1).student_
        save_checkpoint(learned, tokenizer, tmp_path / "teacher", LABEL_NAMES)
        teacher = tmp_path / "teacher"
    still = {"learning_rate": 1e-12, "head_learning_rate": 1e-12, "rounds": 1, "lora": lora, "draw": "all"}
    follower = run_rounds(tiny_backbone, teacher, tmp_path / "a", student_start="teacher", **still)
    assert opinion(follower.student_) == pytest.approx(opinion(from_pretrained(teacher)), abs=1e-5)
    fresh = run_rounds(tiny_backbone, teacher, tmp_path / "b", student_start="pretrained", **still)
    assert opinion(fresh.student_) != opinion(follower.student_)
    again = run_rounds(tiny_backbone, teacher, tmp_path / "a", student_start="teacher", **still)
    assert digest(again.student_) == digest(follower.student_)


@pytest.mark.parametrize("lora", [False, True])
def test_the_head_may_be_fitted_anew_to_all_that_was_taught(tiny_backbone, teacher, tmp_path, lora):
    options = {"rounds": 1, "lora": lora, "draw": "all", "soft_targets": True, "lambda_u": 0.5}
    plain = run_rounds(tiny_backbone, teacher, tmp_path / "a", **options)
    fitted = run_rounds(tiny_backbone, teacher, tmp_path / "b", refit_head=True, **options)
    tokenizer = load_tokenizer(tiny_backbone)
    labeled = tokenize_dataset(make_dataset(11, labels=True), tokenizer, MAX_LENGTH)
    pool = tokenize_dataset(make_dataset(POOL_ROWS, labels=False, offset=3), tokenizer, MAX_LENGTH)
    inputs = [head_inputs(fitted.student_, rows, tokenizer) for rows in (labeled, pool)]
    np.testing.assert_allclose(inputs[1], head_inputs(plain.student_, pool, tokenizer), atol=1e-6)  # the same body
    taught = PseudoLabels.load(tmp_path / "b/round-0/pseudo_labels.npz")[0]
    targets = np.concatenate([np.eye(3)[labeled["labels"][:]], taught.target_probs])
    weights = np.append(np.ones(11), 0.5 * taught.weights)
    every = np.concatenate([inputs[0], inputs[1][taught.rows]]).astype(np.float64)
    logits, before = (
        every @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        for layer in (logit_layer(fitted.student_), logit_layer(plain.student_))
    )
    assert softmax(logits, axis=1).max(axis=1).mean() == pytest.approx(softmax(before, axis=1).max(axis=1).mean())
    weight, bias = soft_logistic_weights(every, targets, weights)
    scale = confidence_scale(every @ weight.T + bias, before)
    np.testing.assert_allclose(logits, scale * (every @ weight.T + bias), atol=1e-4)
    assert np.abs(logits - before).max() > 0.01


def test_a_kept_and_a_loaded_teacher_start_the_same_student_in_bf16(tiny_backbone, teacher, tmp_path):
    """accelerate marks a model that it has prepared, and a copy of it would be trained on in fp32."""
    options = {"bf16": True, "student_start": "teacher", "draw": "all"}
    whole = run_rounds(tiny_backbone, teacher, tmp_path / "whole", **options)
    assert whole.n_iter_ == 2
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again/round-1")
    lines = (tmp_path / "again/rounds.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "again/rounds.jsonl").write_text(lines[0])
    assert digest(run_rounds(tiny_backbone, teacher, tmp_path / "again", **options).student_) == digest(whole.student_)


def test_settings_that_are_not_known_are_all_named_at_once(settings):
    with pytest.raises(ConfigurationError) as error:
        settings(alignment="estimate", stop_agreement=2)
    assert "alignment must be one of none, predicted, estimated, labeled, got 'estimate'" in str(error.value)
    assert "stop_agreement" in str(error.value)


def test_the_settings_know_every_draw_and_acquisition():
    assert DRAW_NAMES == tuple(DRAWS)
    assert ACQUISITION_NAMES == tuple(ACQUISITIONS)


# --- invariants ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lora": True},
        {"mc_passes": 1},
        {"mc_passes": 0, "draw": "all", "weighting": "uniform", "neighbor_smoothing": 0.3},
        {"draw": "top_k", "soft_targets": True, "weighting": "confidence"},
        {"alignment": "estimated", "soft_targets": True, "weighting": "uniform", "freeze_embeddings": True},
        {"alignment": "predicted", "soft_targets": True},
        {"alignment": "labeled", "draw": "uniform"},
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
    rounds = run_rounds(tiny_backbone, teacher, tmp_path, pool_rows=rows, draw=draw, selection_fraction=1.0)
    assert rounds.transduction_.shape == (rows,)
    if draw == "all":
        assert [record["selected"] for record in rounds.rounds_] == [rows] * rounds.n_iter_
        assert (rounds.labeled_iter_ == 0).all()


@pytest.mark.parametrize("options", [{}, {"draw": "all", "alignment": "estimated"}, {"graph": "agreement"}])
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
    settings = {"labeled_texts": texts(60, TINY_WORDS), "draw": "all", "rounds": 1, "weighting": "uniform"}
    pool = texts(36, alien) + texts(4, TINY_WORDS)
    rounds = run_rounds(tiny_backbone, teacher, tmp_path / "a", pool_texts=pool, filter_novel=True, **settings)
    assert "of the pool is unlike all labeled rows" in caplog.text
    assert rounds.rounds_[0]["novel_share"] > 0.3
    weights = np.load(tmp_path / "a" / "round-0" / "pseudo_labels.npz")["weights"]
    assert weights[36:].mean() > 1.5 * weights[:36].mean()
    usual = texts(40, TINY_WORDS)
    rounds = run_rounds(tiny_backbone, teacher, tmp_path / "b", pool_texts=usual, filter_novel=True, **settings)
    assert rounds.rounds_[0]["novel_share"] < 0.3
    np.testing.assert_allclose(np.load(tmp_path / "b" / "round-0" / "pseudo_labels.npz")["weights"], 1)


def test_an_empty_pool_is_refused_in_one_sentence(tiny_backbone, teacher, tmp_path):
    with pytest.raises(TrainingError, match="needs unlabeled rows, got none"):
        run_rounds(tiny_backbone, teacher, tmp_path, pool_rows=0)
    assert list(tmp_path.iterdir()) == []
