"""Committees of teachers: their opinions joined, put beside each other, and the class prior that they find."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.inference.predictions import MCDropoutResult
from hfssl.methods.self_training.frozen_encoder.signals import Neighborhood
from hfssl.methods.self_training.teachers import Opinions, find_class_prior


def said(probs: list[list[float]]) -> MCDropoutResult:
    table = np.array(probs, dtype=np.float32)
    return MCDropoutResult(table, table, np.zeros_like(table), table, np.zeros(len(table), np.float32))


def around(**more) -> Neighborhood:
    return Neighborhood(None, None, 0.0, np.zeros(1, dtype=bool), **more)


def test_the_probe_is_joined_to_the_mean_of_the_teachers():
    probe = around(probe_probs=np.array([[0.1, 0.9]], np.float32))
    opinions = Opinions.of([said([[0.8, 0.2]]), said([[0.6, 0.4]])], probe, 0.25)
    np.testing.assert_allclose(opinions.teacher_probs, [[[0.8, 0.2]], [[0.6, 0.4]]])
    np.testing.assert_allclose(
        opinions.joined.deterministic_probs, [[0.55, 0.45]], rtol=1e-6
    )  # 0.75 * 0.7 + 0.25 * 0.1
    alone = Opinions.of([said([[0.8, 0.2]])], None, 0.25)
    np.testing.assert_allclose(alone.joined.deterministic_probs, [[0.8, 0.2]])


def test_a_rows_nearest_neighbours_have_their_say_after_the_probe():
    """Row 0 has rows 1 and 2 as neighbours, with a mean of 0.3; a fifth of the say is theirs."""
    rows = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]
    neighbors = np.array([[1, 2], [0, 2], [0, 1]], dtype=np.int32)
    opinions = Opinions.of([said(rows)], around(neighbors=neighbors), 0.0, 0.2)
    assert opinions.joined.deterministic_probs[0, 0] == pytest.approx(0.8 * 0.9 + 0.2 * 0.3)
    np.testing.assert_allclose(opinions.joined.deterministic_probs.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(opinions.teacher_probs[0], rows)  # what each teacher says stays its own
    probe = around(neighbors=neighbors, probe_probs=1 - np.array(rows))
    both = Opinions.of([said(rows)], probe, 0.5, 0.2)
    np.testing.assert_allclose(both.joined.deterministic_probs, 0.5, rtol=1e-6)


def test_teachers_without_passes_are_unsure_where_they_disagree():
    """Without dropout each teacher is one pass: BALD is log 2 for two that are each sure of another class."""
    results = [said([[1.0, 0.0], [1.0, 0.0]]), said([[0.0, 1.0], [1.0, 0.0]])]
    joined = Opinions.of(results, None, 0.0).joined
    np.testing.assert_allclose(joined.bald, [np.log(2), 0], atol=1e-6)
    np.testing.assert_allclose(joined.predictive_variance, [[0.25, 0.25], [0, 0]], atol=1e-6)


def test_a_new_teacher_beside_a_committee_has_half_of_the_say():
    three = Opinions.of([said([[0.9, 0.1]])] * 3, None, 0.0)
    both = three.beside(Opinions.of([said([[0.1, 0.9]])], None, 0.0))
    assert both.teacher_probs.shape == (4, 1, 2)
    np.testing.assert_allclose(both.joined.deterministic_probs, [[0.5, 0.5]])
    # Two kinds of passes, at 0.9 and at 0.1: a variance of 0.4^2, and BALD is log 2 minus the entropy of each.
    np.testing.assert_allclose(both.joined.predictive_variance, [[0.16, 0.16]], atol=1e-6)
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(both.joined.bald, [np.log(2) - entropy], atol=1e-6)


def test_they_come_back_from_disk_as_they_were(tmp_path):
    opinions = Opinions.of([said([[0.8, 0.2]]), said([[0.6, 0.4]])], None, 0.0)
    opinions.save(tmp_path / "opinions.npz")
    again = Opinions.load(tmp_path / "opinions.npz")
    np.testing.assert_array_equal(again.teacher_probs, opinions.teacher_probs)
    for name, values in vars(opinions.joined).items():
        np.testing.assert_array_equal(getattr(again.joined, name), values)


@pytest.mark.parametrize("alignment", ["none", "labeled", "predicted", "estimated"])
def test_the_shares_that_an_alignment_asks_for(alignment):
    # Both teachers, which learned from even labels, find class 0 in three of four rows.
    rows = [[0.95, 0.05]] * 3 + [[0.05, 0.95]]
    opinions = Opinions.of([said(rows)] * 2, None, 0.0)
    shares = find_class_prior(opinions, [0, 1, 0, 1], alignment, 0.0)
    if alignment == "none":
        assert shares is None
    elif alignment == "labeled":
        np.testing.assert_allclose(shares, [0.5, 0.5])
    elif alignment == "predicted":
        # Three and one, and one row spread over both: 7 to 3, to the power of 50 parts in 52 beside even labels.
        np.testing.assert_allclose(shares[0] / shares[1], (7 / 3) ** (50 / 52))
    else:
        assert shares[0] > np.mean(rows, axis=0)[0]
        # A probe that has all the say leaves the shares as they are found.
        np.testing.assert_allclose(
            find_class_prior(opinions, [0, 1, 0, 1], alignment, 1.0), np.mean(rows, axis=0), rtol=1e-5
        )
