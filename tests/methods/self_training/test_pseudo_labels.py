"""From a teacher's passes to rows, labels and weights, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.inference.predictions import MCDropoutResult
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.signals import Neighborhood
from hfssl.methods.self_training.pseudo_labels import pseudo_label, sharpened


def scores_of(probs) -> MCDropoutResult:
    probs = np.asarray(probs, dtype=np.float32)
    rest = {"predictive_variance": np.full_like(probs, 0.01), "vote_shares": probs, "bald": np.zeros(len(probs))}
    return MCDropoutResult(mean_probs=probs, deterministic_probs=probs, **rest)


@pytest.fixture
def settings(tmp_path):
    common = {"selection_strategy": "all", "selection_fraction": 1.0, "soft_targets": True, "weighting": "uniform"}
    return lambda **given: SelfTrainingConfig(output_dir=str(tmp_path), use_cpu=True, **(common | given))


def test_labels_are_fitted_to_the_class_shares_of_the_pool(settings):
    """Three rows are surely of class 0 and the fourth is not: by itself class 1 by a little, here class 0."""
    scores = scores_of([[1, 0], [1, 0], [1, 0], [0.45, 0.55]])
    plain = pseudo_label(scores, settings(), np.random.default_rng(0))
    fitted = pseudo_label(scores, settings(), np.random.default_rng(0), np.array([0.9, 0.1]))
    assert plain.predicted.tolist() == [0, 0, 0, 1]
    assert fitted.predicted.tolist() == [0, 0, 0, 0]
    # Only the last row can give: it ends at 0.6 and 0.4, so that the means are 3.6 / 4 and 0.4 / 4.
    np.testing.assert_allclose(fitted.target_probs[3], [0.6, 0.4], atol=1e-4)


def test_a_threshold_is_put_on_what_the_temperature_has_left(settings):
    """At T = 2 the odds of 0.9 and 0.1 are 3 to 1, and those of 0.8 and 0.2 are 2 to 1."""
    scores = scores_of([[0.9, 0.1], [0.8, 0.2]])
    options = settings(selection_strategy="threshold", confidence_threshold=0.75 - 1e-6)
    generator = np.random.default_rng(0)
    assert pseudo_label(scores, options, generator).rows.tolist() == [0, 1]
    tempered = pseudo_label(scores, options, generator, temperature=2.0)
    assert tempered.rows.tolist() == [0]
    np.testing.assert_allclose(tempered.target_probs, [[0.75, 0.25]], atol=1e-6)


def test_sharpening_by_hand():
    # Squares of 0.6 and 0.4 are 0.36 and 0.16.
    np.testing.assert_allclose(sharpened(np.array([[0.6, 0.4]]), 0.5), [[0.36 / 0.52, 0.16 / 0.52]])
    np.testing.assert_allclose(sharpened(np.array([[1.0, 0.0]]), 0.5), [[1.0, 0.0]], atol=1e-12)
    probs = np.array([[0.6, 0.4]], dtype=np.float32)
    assert sharpened(probs, 1.0) is probs


def test_soft_targets_are_sharpened_and_hard_ones_are_not(settings):
    scores = scores_of([[0.6, 0.4]])
    soft = pseudo_label(scores, settings(sharpen_temperature=0.5), np.random.default_rng(0))
    np.testing.assert_allclose(soft.target_probs, [[0.36 / 0.52, 0.16 / 0.52]], atol=1e-6)
    hard = pseudo_label(scores, settings(sharpen_temperature=0.5, soft_targets=False), np.random.default_rng(0))
    np.testing.assert_allclose(hard.target_probs, [[1, 0]])


def neighborhood(probs, trust=1.0, novel=None) -> Neighborhood:
    probs = np.asarray(probs, dtype=np.float64)
    return Neighborhood(probs, np.array([0.9, 0.1]), trust, np.zeros(2, bool) if novel is None else np.array(novel))


def test_a_row_that_graph_and_teacher_agree_on_counts_more(settings):
    scores = scores_of([[0.9, 0.1], [0.9, 0.1]])
    near = neighborhood([[0.75, 0.25], [0.25, 0.75]])
    labels = pseudo_label(scores, settings(label_spreading="agreement"), np.random.default_rng(0), neighborhood=near)
    np.testing.assert_allclose(labels.weights, [1.5, 0.5])  # 3/4 to 1/4, with mean 1
    sure = pseudo_label(scores, settings(label_spreading="certainty"), np.random.default_rng(0), neighborhood=near)
    np.testing.assert_allclose(sure.weights, [1.8, 0.2])  # 0.9 to 0.1, with mean 1


def test_a_graph_without_trust_has_no_say(settings):
    scores, deaf = scores_of([[0.9, 0.1], [0.9, 0.1]]), neighborhood([[0.0, 1.0], [0.0, 1.0]], trust=0.0)
    for graph in ("agreement", "certainty", "labels"):
        labels = pseudo_label(scores, settings(label_spreading=graph), np.random.default_rng(0), neighborhood=deaf)
        np.testing.assert_allclose(labels.weights, [1, 1])
        np.testing.assert_allclose(labels.target_probs, scores.deterministic_probs)


def test_the_graphs_labels_are_mixed_in_as_far_as_it_is_trusted(settings):
    scores, near = scores_of([[0.9, 0.1], [0.6, 0.4]]), neighborhood([[0.5, 0.5], [0.0, 1.0]], trust=0.25)
    labels = pseudo_label(scores, settings(label_spreading="labels"), np.random.default_rng(0), neighborhood=near)
    np.testing.assert_allclose(labels.target_probs, [[0.8, 0.2], [0.45, 0.55]], atol=1e-6)
    assert labels.predicted.tolist() == [0, 1]


def test_novel_rows_lose_their_weight_only_where_the_pool_is_doubtful(settings):
    scores = scores_of([[0.9, 0.1], [0.6, 0.4]])
    args = settings(ood_filter=True)
    odd = neighborhood([[1, 0], [1, 0]], novel=[False, True])  # half of the pool
    labels = pseudo_label(scores, args, np.random.default_rng(0), neighborhood=odd)
    np.testing.assert_allclose(labels.weights, [2, 0])
    usual = Neighborhood(None, None, 0.0, np.array([True] + [False] * 9))
    labels = pseudo_label(scores_of([[0.9, 0.1]] * 10), args, np.random.default_rng(0), neighborhood=usual)
    np.testing.assert_allclose(labels.weights, np.ones(10))
    alien = neighborhood([[1, 0], [1, 0]], novel=[True, True])  # nothing would be left
    labels = pseudo_label(scores, args, np.random.default_rng(0), neighborhood=alien)
    np.testing.assert_allclose(labels.weights, [1, 1])


def test_the_fraction_of_the_round_goes_before_that_of_the_settings(settings):
    scores = scores_of([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7]])
    labels = pseudo_label(scores, settings(selection_strategy="top_k"), np.random.default_rng(0), fraction=0.5)
    assert labels.rows.tolist() == [0, 2]
