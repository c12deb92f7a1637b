"""Intervals and tests against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multinomial

from hfssl.metrics.significance import accuracy_interval, disagreement, paired_gain, sign_test


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
