"""Rows out of distribution: p-values by hand, and the error rates of the alarm."""

from __future__ import annotations

import numpy as np

from hfssl.evaluation.out_of_distribution import ALARM_SHARE, conformal_p_values, ood_rows


def test_p_values_by_hand():
    # On the circle: each labeled row's nearest other lies 10, 10 and 20 degrees away.
    labeled, pool = (np.array([[np.cos(a), np.sin(a)] for a in np.radians(angles)])
                     for angles in ([0, 10, 30], [5, 45, 180, 10]))  # fmt: skip
    # 5 degrees: nearer than all; 15: as far as none but the last; 150: further than all; 0: a copy.
    np.testing.assert_allclose(conformal_p_values(labeled, pool), [4 / 4, 2 / 4, 1 / 4, 4 / 4])


def test_p_values_are_uniform_for_rows_like_the_labeled_ones():
    generator = np.random.default_rng(0)
    shares = [ood_rows(generator.normal(size=(99, 20)), generator.normal(size=(200, 20))).mean() for _ in range(20)]
    assert 0.03 < np.mean(shares) < 0.08
    assert max(shares) < ALARM_SHARE


def test_a_pool_of_which_nine_tenths_come_from_elsewhere_is_flagged():
    generator = np.random.default_rng(0)
    here, there = np.eye(20)[0] * 6, np.eye(20)[1] * 6
    labeled = generator.normal(size=(99, 20)) + here
    pool = generator.normal(size=(1000, 20)) + there
    pool[:100] += here - there
    found = ood_rows(labeled, pool)
    assert found.mean() > 0.8
    assert found[:100].mean() < 0.2


def test_equal_embeddings_and_few_labels_are_not_out_of_distribution():
    assert not ood_rows(np.ones((30, 4)), np.ones((50, 4))).any()
    assert not ood_rows(np.ones((3, 4)), -np.ones((50, 4))).any()
    assert ood_rows(np.ones((30, 4)), np.ones((0, 4))).shape == (0,)
