"""The effect of the settings of self-training on its rounds."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from peft import PeftModel
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from hfssl.data.tokenization import tokenize_dataset
from hfssl.errors import ConfigurationError, TrainingError
from hfssl.evaluation.temperature_scaling import fit_temperature
from hfssl.functional.logistic_regression import soft_logistic_weights
from hfssl.functional.selection import quotas
from hfssl.inference.scoring import head_inputs, mean_embeddings, predict_logits
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.embeddings import embed_layers
from hfssl.methods.self_training.frozen_encoder.signals import EmbeddingSignals
from hfssl.methods.self_training.pseudo_labeler import PseudoLabeler
from hfssl.methods.self_training.pseudo_labels import PseudoLabels
from hfssl.models.auto import from_pretrained
from hfssl.models.backbones import load_tokenizer
from hfssl.models.checkpoints import save_checkpoint
from hfssl.models.heads import logit_layer
from hfssl.models.loading import load_classifier
from hfssl.training.head_fitting import confidence_scale
from hfssl.training.weight_averaging import mean_of_weights
from tests.helpers.rounds_tiny import MAX_LENGTH, POOL_ROWS, digest, run_rounds
from tests.helpers.train_tiny import LABEL_NAMES, make_dataset


@pytest.fixture
def settings(tmp_path):
    common = {"selection_strategy": "all", "selection_fraction": 1.0, "soft_targets": True, "weighting": "uniform"}
    return lambda **given: SelfTrainingConfig(output_dir=str(tmp_path), use_cpu=True, **(common | given))


@pytest.fixture
def selected_from(monkeypatch):
    """The ensemble predictions from which rows are selected."""
    found, select = [], PseudoLabeler.select

    def spy(labeler, prediction, **more):
        found.append(prediction)
        return select(labeler, prediction, **more)

    monkeypatch.setattr(PseudoLabeler, "select", spy)
    return found


def test_the_prior_is_estimated_once_and_remembered(tiny_backbone, teacher, tmp_path):
    found = run_rounds(tiny_backbone, teacher, tmp_path / "a", distribution_alignment="estimated", soft_targets=True)
    assert found.class_prior_.sum() == pytest.approx(1)
    assert [list(record["class_prior"].values()) for record in found.rounds_] == [found.class_prior_.tolist()] * 2
    again = run_rounds(tiny_backbone, teacher, tmp_path / "a", distribution_alignment="estimated", soft_targets=True)
    np.testing.assert_array_equal(again.class_prior_, found.class_prior_)
    labeled = run_rounds(tiny_backbone, teacher, tmp_path / "b", distribution_alignment="labeled", rounds=1)
    assert labeled.class_prior_.tolist() != found.class_prior_.tolist()
    assert run_rounds(tiny_backbone, teacher, tmp_path / "c", rounds=1).rounds_[0]["class_prior"] is None


def test_a_prior_that_is_given_is_that_of_the_labels_that_are_taught(tiny_backbone, teacher, tmp_path):
    options = {
        "class_prior": "plot=2, bad=1, good=1",
        "soft_targets": True,
        "selection_strategy": "all",
        "weighting": "uniform",
    }
    rounds = run_rounds(tiny_backbone, teacher, tmp_path, rounds=1, **options)
    assert rounds.rounds_[0]["class_prior"] == {"bad": 0.25, "good": 0.25, "plot": 0.5}
    taught = PseudoLabels.load(tmp_path / "round-0" / "pseudo_labels.npz")[0]
    np.testing.assert_allclose(taught.target_probs.mean(axis=0), [0.25, 0.25, 0.5], atol=1e-4)
    with pytest.raises(ConfigurationError, match="one number above 0 for each class, such as 'bad=1, good=1, plot=1'"):
        run_rounds(tiny_backbone, teacher, tmp_path, rounds=1, class_prior="bad=1, good=1")


def test_a_threshold_comes_after_a_temperature_that_is_fitted_on_held_out_labels(tiny_backbone, teacher, tmp_path):
    """Of labels that the teacher gets all wrong the temperature is high, and nothing is sure enough any more."""
    tokenizer, model = load_tokenizer(tiny_backbone), from_pretrained(teacher)
    texts = make_dataset(12, labels=False, offset=5)
    logits = predict_logits(model, tokenize_dataset(texts, tokenizer, MAX_LENGTH), tokenizer)
    pool = tokenize_dataset(make_dataset(POOL_ROWS, labels=False, offset=3), tokenizer, MAX_LENGTH)
    of_pool = predict_logits(model, pool, tokenizer)
    threshold = float(np.median(softmax(of_pool, axis=-1).max(axis=-1)))
    options = {"selection_strategy": "threshold", "confidence_threshold": threshold, "rounds": 1}

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
    options = {
        "selection_strategy": "top_k",
        "selection_fraction": 0.2,
        "final_selection_fraction": 0.6,
        "rounds": 3,
        "max_steps": 2,
    }
    rounds = run_rounds(tiny_backbone, teacher, tmp_path, stop_agreement=1.0, **options)
    assert [rounds.args.fraction_at(number) for number in range(3)] == pytest.approx([0.2, 0.4, 0.6])
    for record in rounds.rounds_:  # a class with too few candidates gives what it has
        candidates = np.load(tmp_path / f"round-{record['round']}" / "pseudo_labels.npz")["predicted"]
        quota = quotas(round(rounds.args.fraction_at(record["round"]) * POOL_ROWS), 3)
        assert record["selected"] == np.minimum(np.bincount(candidates, minlength=3), quota).sum()


@pytest.mark.parametrize("mode", ["agreement", "certainty", "labels"])
def test_signals_are_computed_once_and_kept(tiny_backbone, teacher, tmp_path, monkeypatch, mode):
    options = {"label_spreading": mode, "ood_filter": True, "soft_targets": True}
    rounds = run_rounds(tiny_backbone, teacher, tmp_path, **options)
    graph, ood = rounds.signals_["graph"], rounds.signals_.out_of_distribution
    assert graph.probs.shape == (POOL_ROWS, 3)
    assert graph.certainty.shape == ood.rows.shape == (POOL_ROWS,)
    assert [record["graph_trust"] for record in rounds.rounds_] == [graph.trust] * rounds.n_iter_
    assert [record["ood_fraction"] for record in rounds.rounds_] == [ood.fraction] * rounds.n_iter_
    (tmp_path / "round-1").rename(tmp_path / "gone")
    lines = (tmp_path / "rounds.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "rounds.jsonl").write_text(lines[0])
    monkeypatch.setattr(EmbeddingSignals, "compute", lambda *_: pytest.fail("computed a second time"))
    again = run_rounds(tiny_backbone, teacher, tmp_path, **options)
    assert digest(again.student_) == digest(rounds.student_)


def test_the_first_teachers_may_predict_by_the_means_over_their_tokens(tiny_backbone, teacher, tmp_path):
    """In round 1 by logistic regression on these means, in round 2 the student by its own head."""
    run_rounds(
        tiny_backbone,
        teacher,
        tmp_path,
        teacher_probe=True,
        mc_passes=0,
        selection_strategy="all",
        weighting="uniform",
    )
    tokenizer, model = load_tokenizer(tiny_backbone), from_pretrained(teacher)
    labeled, pool = (
        tokenize_dataset(make_dataset(rows, labels=known, offset=offset), tokenizer, MAX_LENGTH)
        for rows, known, offset in ((11, True, 0), (POOL_ROWS, False, 3))
    )
    known, unknown = (normalize(mean_embeddings(model, rows, tokenizer)) for rows in (labeled, pool))
    center = known.mean(axis=0)
    scale = np.sqrt(np.square(known - center).sum(axis=1).mean())
    peer = LogisticRegression(C=10.0, max_iter=1000).fit((known - center) / scale, labeled["labels"][:])
    first, second = (np.load(tmp_path / f"round-{number}" / "ensemble.npz")["teacher_probs"][0] for number in (0, 1))
    np.testing.assert_allclose(first, peer.predict_proba((unknown - center) / scale), atol=1e-3)
    by_head = softmax(predict_logits(model, pool, tokenizer), axis=-1)
    assert np.abs(first - by_head).max() > 0.01
    student = from_pretrained(tmp_path / "round-0" / "student")
    np.testing.assert_allclose(second, softmax(predict_logits(student, pool, tokenizer), axis=-1), atol=1e-5)


def test_a_refit_finds_the_pools_embeddings_and_leaves_the_old_teachers_out(
    tiny_backbone, teacher, tmp_path, monkeypatch, selected_from
):
    """After one round the student learns what new teachers and the new probe predict, and nothing else."""
    rounds = run_rounds(tiny_backbone, teacher, tmp_path / "rounds", rounds=1, backbone_probe=True, soft_targets=True)
    more = tokenize_dataset(make_dataset(14, labels=True), load_tokenizer(tiny_backbone), MAX_LENGTH)
    pool = tokenize_dataset(make_dataset(POOL_ROWS, labels=False, offset=3), load_tokenizer(tiny_backbone), MAX_LENGTH)

    def embed(encoder, rows, *args, **more):
        assert len(rows) < POOL_ROWS, "the pool is embedded a second time"
        return embed_layers(encoder, rows, *args, **more)

    monkeypatch.setattr("hfssl.methods.self_training.frozen_encoder.cache.embed_layers", embed)
    of_rounds = np.load(tmp_path / "rounds/round-0/ensemble.npz")
    new_teachers = [load_classifier(tiny_backbone, LABEL_NAMES, seed=seed) for seed in (5, 6)]
    selected_from.clear()
    student, curve = rounds.refit(new_teachers, more, pool, tmp_path / "refit")
    assert (tmp_path / "refit/pseudo_labels.npz").exists()
    assert curve
    logits = [predict_logits(model, pool, load_tokenizer(tiny_backbone)) for model in new_teachers]
    by_teachers = np.mean([softmax(values, axis=-1) for values in logits], axis=0)
    by_probe = np.load(tmp_path / "refit/signals.npz")["backbone_probe.probs"]
    weights = rounds.rounds_[0]["member_weights"]
    assert weights["backbone_probe"] != pytest.approx(0.4, abs=1e-3)  # nine held-out rows have moved it
    expected = weights["teachers"] * by_teachers + weights["backbone_probe"] * by_probe
    np.testing.assert_allclose(selected_from[0].deterministic_probs, expected, atol=1e-5)
    assert np.abs(of_rounds["deterministic_probs"] - expected).max() > 0.01
    assert digest(student) != digest(rounds.student_)
    with pytest.raises(TrainingError, match="Expected the pool of 40 rows that .* was begun with, got 39 rows"):
        rounds.refit(new_teachers, more, pool.select(range(39)), tmp_path / "other")


def logits_of(model) -> list[float]:
    """Logits of one text."""
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
    still = {
        "learning_rate": 1e-12,
        "head_learning_rate": 1e-12,
        "rounds": 1,
        "lora": lora,
        "selection_strategy": "all",
    }
    follower = run_rounds(tiny_backbone, teacher, tmp_path / "a", student_init="teacher", **still)
    assert logits_of(follower.student_) == pytest.approx(logits_of(from_pretrained(teacher)), abs=1e-5)
    fresh = run_rounds(tiny_backbone, teacher, tmp_path / "b", student_init="pretrained", **still)
    assert logits_of(fresh.student_) != logits_of(follower.student_)
    again = run_rounds(tiny_backbone, teacher, tmp_path / "a", student_init="teacher", **still)
    assert digest(again.student_) == digest(follower.student_)


def test_the_mean_of_the_teachers_weights_teaches_and_is_where_students_start(
    tiny_backbone, teacher, tmp_path, selected_from
):
    still = {
        "learning_rate": 1e-12,
        "head_learning_rate": 1e-12,
        "rounds": 1,
        "mc_passes": 0,
        "selection_strategy": "all",
    }
    settings = still | {"student_init": "teacher", "model_soup": True, "num_teachers": 2, "weighting": "uniform"}
    rounds = run_rounds(tiny_backbone, teacher, tmp_path / "rounds", **settings)  # with the one that is there
    assert len(np.load(tmp_path / "rounds/round-0/ensemble.npz")["teacher_probs"]) == 1
    tokenizer = load_tokenizer(tiny_backbone)
    more = tokenize_dataset(make_dataset(14, labels=True), tokenizer, MAX_LENGTH)
    pool = tokenize_dataset(make_dataset(POOL_ROWS, labels=False, offset=3), tokenizer, MAX_LENGTH)
    teachers = [load_classifier(tiny_backbone, LABEL_NAMES, seed=seed) for seed in (5, 6)]
    soup = mean_of_weights(teachers)
    selected_from.clear()
    student, _ = rounds.refit(teachers, more, pool, tmp_path / "refit")
    assert logits_of(student) == pytest.approx(logits_of(soup), abs=1e-5)
    predicted = [softmax(predict_logits(model, pool, tokenizer), axis=-1) for model in (soup, *teachers)]
    np.testing.assert_allclose(selected_from[0].deterministic_probs, np.mean(predicted, axis=0), atol=1e-5)


def test_adapters_are_not_averaged_and_it_says_so(tiny_backbone, teacher, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(
        "hfssl.methods.self_training.teachers.logger.warning", lambda text, *values: warnings.append(text % values)
    )
    soup = {"model_soup": True, "num_teachers": 2}
    rounds = run_rounds(tiny_backbone, teacher, tmp_path / "rounds", rounds=1, lora=True, **soup)
    adapters = [rounds.student_, rounds.student_]
    pool = tokenize_dataset(make_dataset(POOL_ROWS, labels=False, offset=3), load_tokenizer(tiny_backbone), MAX_LENGTH)
    more = tokenize_dataset(make_dataset(14, labels=True), load_tokenizer(tiny_backbone), MAX_LENGTH)
    student, _ = rounds.refit(adapters, more, pool, tmp_path / "refit")
    assert isinstance(student, PeftModel)
    assert warnings == ["Adapters cannot be averaged: model_soup is ignored."]
    assert [teacher.model for teacher in rounds._teachers] == adapters


@pytest.mark.parametrize("lora", [False, True])
def test_the_head_may_be_retrained_on_all_targets(tiny_backbone, teacher, tmp_path, lora):
    options = {"rounds": 1, "lora": lora, "selection_strategy": "all", "soft_targets": True, "lambda_u": 0.5}
    plain = run_rounds(tiny_backbone, teacher, tmp_path / "a", **options)
    fitted = run_rounds(tiny_backbone, teacher, tmp_path / "b", retrain_head=True, **options)
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
    options = {"bf16": True, "student_init": "teacher", "selection_strategy": "all"}
    whole = run_rounds(tiny_backbone, teacher, tmp_path / "whole", **options)
    assert whole.n_iter_ == 2
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again/round-1")
    lines = (tmp_path / "again/rounds.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "again/rounds.jsonl").write_text(lines[0])
    assert digest(run_rounds(tiny_backbone, teacher, tmp_path / "again", **options).student_) == digest(whole.student_)
