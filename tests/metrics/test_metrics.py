"""Metrics against numbers worked out by hand (the working is in each test)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import multinomial

from hfssl.metrics.calibration import debiased_ece, expected_calibration_error, reliability_bins
from hfssl.metrics.classification import accuracy, class_scores, confusion_matrix, evaluate_probs, macro_f1, nll
from hfssl.metrics.evaluate_metrics import METRICS
from hfssl.metrics.significance import accuracy_interval, disagreement, paired_gain, sign_test

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


def test_ece_by_hand():
    # Five bins. Confidences .9 .9 .9 .9 lie in (.8, 1]: accuracy 3/4, gap .15, share 4/6.
    # Confidences .55 .55 lie in (.4, .6]: accuracy 2/2, gap .45, share 2/6. ECE = .15 * 4/6 + .45 * 2/6 = .25
    probs = [[0.9, 0.1]] * 4 + [[0.55, 0.45]] * 2
    labels = np.array([0, 0, 0, 1, 0, 0])
    assert expected_calibration_error(probs, labels, bins=5) == pytest.approx(0.25)
    bins = reliability_bins(probs, labels, bins=5)
    assert [b.count for b in bins] == [0, 0, 2, 0, 4]
    assert (bins[4].low, bins[4].high) == (0.8, 1.0)
    assert bins[4].confidence == pytest.approx(0.9)
    assert bins[4].accuracy == pytest.approx(0.75)
    assert bins[0].confidence is None
    assert bins[0].accuracy is None


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin_and_one_to_the_last():
    # Two bins, (0, .5] and (.5, 1]: .5 falls into the first, 1 into the second.
    assert [b.count for b in reliability_bins([[0.5, 0.5], [1.0, 0.0]], np.array([0, 0]), bins=2)] == [1, 1]


def sure(*confidences: float) -> np.ndarray:
    """Rows of two classes that predict the first one."""
    return np.array([[one, 1 - one] for one in confidences])


def test_debiased_ece_by_hand():
    # Two bins of equal size: .6 .7 .7 with accuracy 1/3, .8 .9 .9 with accuracy 1.
    probs, labels = sure(0.9, 0.6, 0.8, 0.7, 0.9, 0.7), np.array([0, 1, 0, 1, 0, 0])
    # gaps 2/3 - 1/3 and 13/15 - 1; variance of the first accuracy (1/3 * 2/3) / 2 = 1/9, of the second 0
    squared = 0.5 * ((1 / 3) ** 2 - 1 / 9) + 0.5 * (2 / 15) ** 2
    assert debiased_ece(probs, labels, bins=2) == pytest.approx(np.sqrt(squared))
    # One bin: mean confidence 23/30, accuracy 4/6, variance (2/3 * 1/3) / 5: more than the squared gap.
    assert debiased_ece(probs, labels, bins=1) == 0.0


def test_debiased_ece_keeps_equal_confidences_together_in_any_order():
    # Four rows in two bins: the edge lies between two rows of .7, which go into the lower bin with the first.
    probs, labels = sure(0.6, 0.7, 0.7, 0.9), np.array([1, 1, 1, 0])
    # .6 .7 .7, all wrong: gap 2/3; .9, right: gap .1
    expected = np.sqrt(0.75 * (2 / 3) ** 2 + 0.25 * 0.1**2)
    assert debiased_ece(probs, labels, bins=2) == pytest.approx(expected)
    order = [2, 3, 0, 1]
    assert debiased_ece(probs[order], labels[order], bins=2) == pytest.approx(expected)


def test_debiased_ece_of_few_rows():
    assert debiased_ece(sure(0.8), np.array([1])) == pytest.approx(0.8)  # one row has no variance
    assert debiased_ece(sure(0.8, 0.6), np.array([1, 0])) == 0.0  # one bin: (.7 - .5)^2 - .25 < 0
    with pytest.raises(ValueError, match="at least one bin"):
        debiased_ece(sure(0.8), np.array([1]), bins=0)


def test_debiased_ece_is_right_on_average_where_the_plain_one_is_too_large():
    # Confidence .95, right with probability .5: the squared error is .45^2 = .2025. The mean of the plain squared gap
    # over draws of 50 rows is larger by .5 * .5 / 50 = .005.
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (4000, 50))
    debiased = [debiased_ece(sure(*[0.95] * 50), row) ** 2 for row in labels]
    plain = [expected_calibration_error(sure(*[0.95] * 50), row) ** 2 for row in labels]
    assert np.mean(debiased) == pytest.approx(0.2025, abs=0.003)  # standard error of the mean: .001
    assert np.mean(plain) == pytest.approx(0.2075, abs=0.003)
    calibrated = np.where(generator.random((200, 300)) < 0.8, 0, 1)
    assert np.mean([debiased_ece(sure(*[0.8] * 300), row) for row in calibrated]) < 0.02


def test_sure_and_right_has_no_calibration_error_sure_and_wrong_has_all_of_it():
    probs = np.eye(3)
    assert expected_calibration_error(probs, np.array([0, 1, 2])) == 0.0
    assert expected_calibration_error(probs, np.array([1, 2, 0])) == 1.0


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


def test_paired_gain_by_hand():
    # 10 rows: b wins 3, loses 1. (3 - 1) / 12 = .16667; variance (5 / 12 - .02778) / 12 = .032407, its root .18002;
    # times 1.95996 .35283.
    a = [True, False, False, False] + 6 * [True]
    b = [False, True, True, True] + 6 * [True]
    gain, low, high = paired_gain(a, b)
    assert gain == pytest.approx(0.2)
    assert (low, high) == pytest.approx((-0.18617, 0.51950), abs=1e-5)
    assert paired_gain(b, a) == pytest.approx((-0.2, -0.51950, 0.18617), abs=1e-5)
    # Half of the mass: times .67449 .12142.
    assert paired_gain(a, b, confidence=0.5)[1:] == pytest.approx((0.04525, 0.28809), abs=1e-5)


def test_paired_gain_of_models_that_agree_on_all_of_few_rows_is_not_sure_of_it():
    # 9 rows: 0 -+ 1.95996 * sqrt(1 / 11 / 11) = .17818
    assert paired_gain(np.ones(9), np.ones(9)) == pytest.approx((0.0, -0.17818, 0.17818), abs=1e-5)
    assert paired_gain([False], [True]) == pytest.approx((1.0, -0.51010, 1.0), abs=1e-5)  # 1/3 - 1.95996 * .43033


@pytest.mark.parametrize("count", [6, 9, 18, 32])
def test_paired_gain_covers_as_often_as_it_says(count):
    outcomes = np.array([(lost, won) for lost in range(count + 1) for won in range(count + 1 - lost)])
    bounds = []
    for lost, won in outcomes:
        a, b = np.zeros((2, count), dtype=bool)
        a[:lost] = b[lost : lost + won] = True
        bounds.append(paired_gain(a, b)[1:])
    low, high = np.array(bounds).T
    covered = []
    for differing in (0.1, 0.2, 0.3, 0.4):
        for gain in (-0.05, 0.0, 0.03, 0.08):
            shares = [(differing - gain) / 2, (differing + gain) / 2, 1 - differing]
            chances = multinomial.pmf(np.c_[outcomes, count - outcomes.sum(axis=1)], count, shares)
            assert chances.sum() == pytest.approx(1.0)
            covered.append(chances[(low <= gain) & (gain <= high)].sum())
    assert min(covered) > 0.94
    assert np.mean(covered) < 0.995  # nor does it say nothing


def test_paired_gain_refuses_unpaired_rows():
    with pytest.raises(ValueError, match="equally long"):
        paired_gain([True], [True, False])
    with pytest.raises(ValueError, match="at least one row"):
        paired_gain([], [])
    with pytest.raises(ValueError, match="confidence"):
        paired_gain([True], [True], confidence=1.0)


def test_accuracy_interval_by_hand():
    # p = 1/2, n = 4, z^2 = 3.8415: middle 1/2; half = z / (1 + z^2/4) * sqrt(1/16 + z^2/64)
    # = 1.95996 / 1.96036 * sqrt(.0625 + .060023) = .99979 * .35003 = .34996.
    assert accuracy_interval(0.5, 4) == pytest.approx((0.15004, 0.84996), abs=1e-4)
    # p = 1, n = 10: the upper end is 1, the lower one n / (n + z^2) = 10 / 13.8415 = .72246.
    assert accuracy_interval(1.0, 10) == pytest.approx((0.72246, 1.0), abs=1e-4)


def test_hub_metrics_give_the_same_numbers_offline():
    probs = [[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]
    labels = np.array([0, 1, 1])
    expected = evaluate_probs(probs, labels)
    for name, metric_class in METRICS.items():
        predictions = probs if name in ("nll", "ece") else np.argmax(probs, axis=1)
        result = metric_class().compute(predictions=predictions, references=labels)
        assert result == {name: pytest.approx(expected[name])}


def test_hub_metrics_accumulate_batches_and_pass_options_on():
    metric = METRICS["ece"]()
    metric.add_batch(predictions=[[0.9, 0.1]] * 4, references=[0, 0, 0, 1])
    metric.add_batch(predictions=[[0.55, 0.45]] * 2, references=[0, 0])
    assert metric.compute(bins=5) == {"ece": pytest.approx(0.25)}


def test_sign_test_by_hand():
    # Two rows on which both are right, and three to one between them: 4 + 1 of the 16 outcomes of four coins.
    assert sign_test([1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 1]) == pytest.approx(5 / 16)
    assert sign_test([1] * 5, [0] * 5) == pytest.approx(1 / 32)
    assert sign_test([0] * 5, [1] * 5) == 1
    assert sign_test([1, 0], [1, 0]) == sign_test([], []) == 1
    with pytest.raises(ValueError, match="two equally long rows"):
        sign_test([1], [1, 0])


def test_disagreement_is_the_mean_over_pairs():
    # 1 of 4, 2 of 4 and 3 of 4 rows differ.
    assert disagreement([[0, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1]]) == pytest.approx((1 + 2 + 3) / 12)
    assert disagreement([[0, 1]]) is None
    assert disagreement([[], []]) is None
