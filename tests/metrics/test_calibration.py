"""Calibration against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.metrics.calibration import expected_calibration_error, reliability_bins


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
