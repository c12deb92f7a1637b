"""The names of the classes: as words, weighted by the labels, and multiplied into a teacher's probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.methods.self_training.frozen_encoder.label_names import (
    STRENGTHS,
    choose_strength,
    multiplied,
    name_texts,
    weigh_names,
)


def test_names_become_words():
    assert name_texts(["card_arrival", "Sci/Tech", "ageLimit", "it's-ok"]) == [
        "card arrival",
        "Sci Tech",
        "age Limit",
        "it s ok",
    ]


@pytest.mark.parametrize("name", ["3", "LABEL_3", "class 12", "--", "4.5"])
def test_a_class_without_a_name_silences_all(name):
    assert name_texts(["joy", name]) is None


def test_both_predictions_are_multiplied():
    log_odds = np.log(np.array([[4.0, 1.0], [1.0, 1.0]], dtype=np.float32))
    applied = multiplied(np.array([[0.25, 0.75], [0.25, 0.75]], dtype=np.float32), log_odds)
    np.testing.assert_allclose(applied, [[4 / 7, 3 / 7], [0.25, 0.75]], rtol=1e-6)  # 0.25 * 4 against 0.75 * 1
    assert applied.dtype == np.float32


def points(rng: np.random.Generator, labels: np.ndarray, centers: np.ndarray, noise: float) -> np.ndarray:
    rows = centers[labels] + noise * rng.normal(size=(len(labels), centers.shape[1]))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def embedded():
    """8 labels a class and a pool of 600 in 32 dimensions: too noisy for the labels alone."""
    rng = np.random.default_rng(0)
    centers = np.eye(3, 32)
    labels, hidden = np.repeat(np.arange(3), 8), rng.integers(3, size=600)
    return centers, points(rng, labels, centers, 0.4), labels, points(rng, hidden, centers, 0.4), hidden


def test_names_that_say_something_are_trusted_and_help(embedded):
    centers, known, labels, pool, hidden = embedded
    prior = weigh_names(known, labels, pool, centers, pool[:5], seed=0)
    assert prior.strength > 0
    even = np.full((len(pool), 3), 1 / 3)
    assert (multiplied(even, prior.log_odds).argmax(axis=1) == hidden).mean() > 0.8
    np.testing.assert_allclose(prior.held_out, prior.log_odds[:5], rtol=1e-5)
    assert prior.log_odds.std() == pytest.approx(prior.strength, rel=1e-5)


def test_names_that_mislead_are_not_trusted(embedded):
    centers, known, labels, pool, _ = embedded
    prior = weigh_names(known, labels, pool, centers[[1, 2, 0]], pool[:0], seed=0)
    assert prior.strength == 0
    np.testing.assert_array_equal(prior.log_odds, 0)


def test_names_that_are_all_the_same_say_nothing(embedded):
    centers, known, labels, pool, _ = embedded
    assert weigh_names(known, labels, pool, centers[[0, 0, 0]], pool[:0], seed=0).strength == 0


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 0, 0, 0], [0, 0, 1]])
def test_too_few_labels_to_cross_validate_speak_for_or_against_the_names_alone(labels):
    features, scores = np.random.default_rng(0).normal(size=(len(labels), 4)), 2.0 * np.eye(3)
    assert choose_strength(features, np.array(labels), scores[labels], seed=0) == max(STRENGTHS)
    assert choose_strength(features, np.array(labels), -scores[labels], seed=0) == 0


def test_the_doubt_by_hand():
    """One label and two classes: at strength s it costs log(1 + exp(s * gap)) nats, and the doubt (1 - 2s)^2.

    A gap of 1: 0.693 + 1, 0.826 + 0.25 and 0.974 + 0 nats at 0, 0.25 and 0.5; of 2: 0.693 + 1, 0.974 + 0.25 and
    1.313; of 6: 0.693 + 1, 1.701 + 0.25 and 3.049.
    """
    chosen = [choose_strength(np.zeros((1, 4)), np.array([0]), np.array([[0.0, gap]]), seed=0) for gap in (1, 2, 6)]
    assert chosen == [0.5, 0.25, 0.0]


def test_the_choice_is_one_of_the_strengths_also_where_a_class_has_one_label(embedded):
    _, known, labels, _, _ = embedded
    rows = np.r_[0, 8:24]  # one label of class 0
    assert choose_strength(known[rows], labels[rows], 2.0 * np.eye(3)[labels[rows]], seed=0) in STRENGTHS[1:]
