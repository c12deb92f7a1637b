"""Calibration against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.metrics.calibration import debiased_ece, expected_calibration_error, reliability_bins


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


def test_sure_and_right_has_no_calibration_error_sure_and_wrong_has_all_of_it():
    probs = np.eye(3)
    assert expected_calibration_error(probs, np.array([0, 1, 2])) == 0.0
    assert expected_calibration_error(probs, np.array([1, 2, 0])) == 1.0


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
