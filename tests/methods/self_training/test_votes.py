"""Votes: weights of the members of the ensemble, by labels that none of them has learned."""

from __future__ import annotations

import numpy as np
import pytest

import hfssl.methods.self_training.votes as votes_module
from hfssl.evaluation.temperature_scaling import fit_temperature
from hfssl.methods.self_training.votes import TEACHERS, Votes, mixed


def two(teachers, probe, labels) -> Votes:
    return Votes({TEACHERS: np.asarray(teachers), "backbone_probe": np.asarray(probe)}, np.asarray(labels))


def test_without_rows_the_weights_are_those_of_the_prior():
    """Pseudo-counts of 6, 4 and 1: the teachers, the probe and the neighbours."""
    votes = Votes.none([TEACHERS, "backbone_probe", "neighbors"])
    assert (len(votes), votes.temperature) == (0, 1.0)
    assert votes.weights == pytest.approx({TEACHERS: 6 / 11, "backbone_probe": 4 / 11, "neighbors": 1 / 11})
    assert Votes.none([TEACHERS, "of_my_own"]).weights["of_my_own"] == pytest.approx(1 / 7)


def test_the_weights_are_those_of_the_likeliest_mixture(monkeypatch):
    # One row, likelihoods 0.8 and 0.4, and 6 and 4 rows before: the probe's weight is the fixed point of
    # w = (0.4 w / (0.8 (1 - w) + 0.4 w) + 4) / 11, the root of 11 w^2 - 25 w + 8 = 0 that is below 1.
    monkeypatch.setattr(votes_module, "fit_temperature", lambda scores, labels: 1.0)
    found = two([[0.8, 0.2]], [[0.4, 0.6]], [0]).weights
    assert found["backbone_probe"] == pytest.approx((25 - np.sqrt(273)) / 22, abs=1e-5)
    assert sum(found.values()) == pytest.approx(1)


def test_overconfidence_does_not_count_against_a_member_that_is_right_more_often():
    labels = np.zeros(40, dtype=np.int64)
    sure = np.tile([[0.999, 0.001]], (40, 1))
    sure[:12] = [0.001, 0.999]  # 28 of 40 right, and sure of all
    unsure = np.tile([[0.55, 0.45]], (40, 1))
    unsure[:20] = [0.45, 0.55]  # 20 of 40 right, and sure of none
    assert two(unsure, sure, labels).weights["backbone_probe"] > 0.45
    assert two(sure, unsure, labels).weights["backbone_probe"] < 0.39  # less than that of the prior


def test_a_few_labels_leave_each_member_some_weight():
    """18 labels that are twice as likely by the probe: the teachers, of whom more is expected, keep a third."""
    labels = np.tile([0, 1], 9)
    likely, half = np.where(labels[:, None] == [0, 1], 0.9, 0.1), np.full((18, 2), 0.5)
    assert 0.5 < two(half, likely, labels).weights["backbone_probe"] < 0.8
    assert 0.1 < two(likely, half, labels).weights["backbone_probe"] < 0.4


def test_the_temperature_is_that_of_the_mixture():
    """The mixture, and not its members, is what a threshold reads."""
    labels = np.array([0, 0, 0, 1])
    teachers, probe = np.tile([0.95, 0.05], (4, 1)), np.tile([0.6, 0.4], (4, 1))
    votes = two(teachers, probe, labels)
    mixture = votes.weights[TEACHERS] * teachers + votes.weights["backbone_probe"] * probe
    assert votes.temperature == pytest.approx(fit_temperature(np.log(mixture), labels))
    assert votes.temperature != pytest.approx(fit_temperature(np.log(teachers), labels), rel=0.01)


def test_some_rows_are_selected_by_number_or_by_mask():
    votes = two([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]], [[0.4, 0.6], [0.5, 0.5], [0.6, 0.4]], [0, 1, 0])
    for rows in (np.array([0, 2]), np.array([True, False, True])):
        found = votes.select(rows)
        assert found.labels.tolist() == [0, 0]
        np.testing.assert_array_equal(found.probs[TEACHERS][:, 0], [0.1, 0.3])
        np.testing.assert_array_equal(found.probs["backbone_probe"][:, 0], [0.4, 0.6])


def test_weights_do_not_depend_on_rows_that_are_left_out():
    """Of ten labels that speak for the probe nothing is left when they are left out."""
    labels = np.zeros(20, dtype=np.int64)
    teachers, probe = np.full((20, 2), 0.5), np.full((20, 2), 0.5)
    probe[:10] = [0.99, 0.01]
    votes = two(teachers, probe, labels)
    rest = votes.select(np.arange(20) >= 10)
    assert votes.weights["backbone_probe"] > 0.45
    assert rest.weights["backbone_probe"] == pytest.approx(0.4, abs=1e-6)  # that of the prior


def test_a_mixture_gives_the_teachers_what_the_others_leave():
    teachers = np.array([[0.8, 0.2]], dtype=np.float32)
    probs = {TEACHERS: teachers, "backbone_probe": np.array([[0.1, 0.9]]), "neighbors": np.array([[0.4, 0.6]])}
    found = mixed(probs, {TEACHERS: 0.5, "backbone_probe": 0.3, "neighbors": 0.2})
    np.testing.assert_allclose(found, [[0.5 * 0.8 + 0.3 * 0.1 + 0.2 * 0.4, 0.5 * 0.2 + 0.3 * 0.9 + 0.2 * 0.6]])
    assert found.dtype == np.float32
    # A member that has no weight gets none, and a weight of a member that is not there is the teachers'.
    np.testing.assert_allclose(mixed(probs, {"backbone_probe": 0.5}), [[0.45, 0.55]])
    np.testing.assert_allclose(mixed({TEACHERS: teachers}, {TEACHERS: 0.5, "backbone_probe": 0.5}), teachers)
