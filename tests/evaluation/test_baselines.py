"""The simplest alternatives, and whether a model is better than they are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from hfssl.evaluation.baselines import baseline_logits, judge_standing, out_of_fold_logits
from hfssl.tasks.registry import get_task

TASK = get_task()
LABELS = np.array([0, 0, 0, 1])
NOTHING = np.zeros((4, 0))


def test_without_features_the_regression_is_the_class_prior():
    logits = baseline_logits(NOTHING, LABELS, np.zeros((2, 0)), 2, TASK)
    np.testing.assert_allclose(softmax(logits, axis=1), [[0.75, 0.25]] * 2, atol=1e-4)


def test_the_probe_separates_what_a_line_separates():
    known = np.array([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.0, 1.0]])
    logits = baseline_logits(known, LABELS, np.array([[1.0, 0.0], [0.1, 0.9]]), 2, TASK)
    assert logits.argmax(axis=1).tolist() == [0, 1]


def test_a_row_is_predicted_without_its_fold():
    labels, numbers = np.array([0, 0, 1, 1, 1, 0]), np.array([0, 0, 1, 1, 1, -1])
    logits = out_of_fold_logits(np.zeros((6, 0)), labels, numbers, 2, TASK)
    # Fold 0 is predicted by the labels 1 1 1 0, fold 1 by 0 0 and 0 alone, which cannot be told apart; the last row is
    # in no fold.
    np.testing.assert_allclose(softmax(logits, axis=1), [[0.25, 0.75]] * 2 + [[0.5, 0.5]] * 3, atol=1e-4)


def test_without_folds_one_row_is_left_out_at_a_time():
    logits = out_of_fold_logits(NOTHING, np.array([0, 0, 1, 1]), None, 2, TASK)
    np.testing.assert_allclose(softmax(logits, axis=1)[:, 0], [1 / 3, 1 / 3, 2 / 3, 2 / 3], atol=1e-4)


def test_a_model_stands_above_a_baseline_only_beyond_noise():
    labels = np.array([0, 1] * 10)
    right, majority = np.eye(2)[labels], np.tile([0.9, 0.1], (20, 1))
    (better,) = judge_standing(right, {"majority": majority}, labels, TASK)
    assert better.is_better
    assert better.gain == pytest.approx(0.5)
    one_more = majority.copy()
    one_more[1] = [0.0, 1.0]
    (unclear,) = judge_standing(one_more, {"majority": majority}, labels, TASK)
    assert unclear.gain == pytest.approx(0.05)
    assert not unclear.is_better
    assert unclear.as_dict()["interval"][0] < 0 < unclear.as_dict()["interval"][1]
