"""Accuracy, F1 and log-likelihood against numbers worked out by hand (the working is in each test)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hfssl.metrics.classification import accuracy, class_scores, confusion_matrix, evaluate_probs, macro_f1, nll

# true   0 0 0 1 1 2      confusion (row = true)   0: [2 1 0]
# guess  0 0 1 1 2 1                               1: [0 1 1]
#                                                  2: [0 1 0]
LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTIONS = np.array([0, 0, 1, 1, 2, 1])


def test_accuracy_counts_right_rows():
    assert accuracy(PREDICTIONS, LABELS) == pytest.approx(3 / 6)


def test_confusion_matrix_has_truth_in_rows():
    assert confusion_matrix(PREDICTIONS, LABELS, 3).tolist() == [[2, 1, 0], [0, 1, 1], [0, 1, 0]]
    assert confusion_matrix(PREDICTIONS, LABELS, 4).shape == (4, 4)
    with pytest.raises(ValueError, match="below 2"):
        confusion_matrix(PREDICTIONS, LABELS, 2)


def test_class_scores_and_macro_f1_by_hand():
    # class 0: TP 2, FP 0, FN 1: precision 1,   recall 2/3, F1 = 4 / (4 + 0 + 1) = 4/5
    # class 1: TP 1, FP 2, FN 1: precision 1/3, recall 1/2, F1 = 2 / (2 + 2 + 1) = 2/5
    # class 2: TP 0, FP 1, FN 1: all 0
    scores = class_scores(confusion_matrix(PREDICTIONS, LABELS, 3))
    np.testing.assert_allclose(scores.precision, [1, 1 / 3, 0])
    np.testing.assert_allclose(scores.recall, [2 / 3, 1 / 2, 0])
    np.testing.assert_allclose(scores.f1, [4 / 5, 2 / 5, 0])
    assert macro_f1(PREDICTIONS, LABELS) == pytest.approx((4 / 5 + 2 / 5 + 0) / 3)


def test_macro_f1_ignores_classes_that_never_occur():
    # Only classes 0 and 3 occur; both are always right, so the mean is 1 and not 2/4.
    assert macro_f1(np.array([0, 3]), np.array([0, 3])) == 1.0
    # A class that is only predicted does count: class 0 has F1 = 2/3 (TP 1, FN 1), class 3 has F1 = 0.
    assert macro_f1(np.array([0, 3]), np.array([0, 0])) == pytest.approx((2 / 3 + 0) / 2)


def test_macro_f1_is_scikit_learns():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    for _ in range(20):
        labels, predictions = rng.integers(0, 7, 30), rng.integers(0, 7, 30)
        assert macro_f1(predictions, labels) == pytest.approx(f1_score(labels, predictions, average="macro"))


def test_nll_is_in_nats():
    # -(ln 0.5 + ln 0.25) / 2 = (ln 2 + 2 ln 2) / 2 = 1.5 ln 2
    assert nll([[0.5, 0.5], [0.75, 0.25]], np.array([0, 1])) == pytest.approx(1.5 * math.log(2))


def test_nll_of_a_certain_mistake_is_finite():
    assert nll([[1.0, 0.0]], np.array([1])) == pytest.approx(-math.log(1e-12))


def test_evaluate_probs_holds_the_four_numbers():
    # Predictions 0, 0, 1: two of three right. Class 0: TP 1 FP 0 FN ... labels 0, 1, 1:
    # class 0: TP 1, FP 1, FN 0: F1 2/3; class 1: TP 1, FP 0, FN 1: F1 2/3.
    # nll = -(ln .8 + ln .4 + ln .9) / 3. ECE over 15 bins: .8 in (.733, .8], .6 in (.533, .6], .9 in (.867, .933]:
    # gaps .2, .6, .1, each with a third of the rows: .3
    result = evaluate_probs(np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]), np.array([0, 1, 1]))
    assert result == {
        "accuracy": pytest.approx(2 / 3),
        "macro_f1": pytest.approx(2 / 3),
        "nll": pytest.approx(-(math.log(0.8) + math.log(0.4) + math.log(0.9)) / 3),
        "ece": pytest.approx(0.3),
    }
    assert all(type(value) is float for value in result.values())


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, dtype=int), "N >= 1"),
        ([[0.5, 0.5]], np.array([-1]), "unlabeled"),
        ([[0.5, 0.5]], np.array([2]), "0 to 1"),
        ([[2.0, -1.0]], np.array([0]), "softmax"),
        ([[math.nan, 0.5]], np.array([0]), "softmax"),
        ([[0.5, 0.5]], np.array([0.0]), "integer"),
        ([[0.5, 0.5]], np.array([0, 1]), "labels \\[N\\]"),
    ],
)
def test_what_is_not_probabilities_and_labels_is_refused(probs, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate_probs(probs, labels)
