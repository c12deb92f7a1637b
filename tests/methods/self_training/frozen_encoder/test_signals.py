"""Embedding signals, each by hand-made embeddings, and all together."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

import hfssl.methods.self_training.frozen_encoder.signals as signals_module
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.embeddings import EmbeddedRows
from hfssl.methods.self_training.frozen_encoder.signal_base import Signal
from hfssl.methods.self_training.frozen_encoder.signals import (
    SIGNALS,
    BackboneProbe,
    ClassNames,
    EmbeddingSignals,
    Graph,
    Neighbors,
    OutOfDistribution,
    Smoothing,
    signal_facts,
)
from tests.helpers.table_model import on_circle

NOTHING = EmbeddedRows(np.zeros((1, 0, 2), dtype=np.float32))


def rows_at(*degrees: float, labels: list[int] | None = None) -> EmbeddedRows:
    return EmbeddedRows(on_circle(degrees)[None], None if labels is None else np.array(labels))


def names_at(*degrees: float):
    """Embeds class names at these angles."""
    return lambda texts: on_circle(degrees)


def probs_of(*first: float) -> np.ndarray:
    """`[N, 2]` probabilities, from those of the first class."""
    return np.array([[p, 1 - p] for p in first], dtype=np.float32)


# --- out of distribution ---------------------------------------------------------------------------------------------


def test_rows_out_of_distribution_lose_their_weight_where_they_are_many_but_not_all():
    # Labeled rows one degree apart; with 20 of them the smallest p-value is 1/21.
    labeled = rows_at(*range(20), labels=[0] * 20)
    found = OutOfDistribution(active=True)
    found.compute(labeled, rows_at(5.5, 120), NOTHING)
    assert found.rows.tolist() == [False, True]
    assert found.fraction == 0.5
    assert found.alarming
    np.testing.assert_array_equal(found.weights(probs_of(0.5, 0.5)), [1, 0])
    passive = OutOfDistribution(active=False)
    passive.compute(labeled, rows_at(5.5, 120), NOTHING)
    assert passive.weights(probs_of(0.5, 0.5)) is None
    found.compute(labeled, rows_at(120, 150), NOTHING)
    assert found.rows.all()
    assert found.weights(probs_of(0.5, 0.5)) is None  # nothing would be left
    found.compute(labeled, rows_at(*[5.5] * 9, 120), NOTHING)
    assert found.fraction == 0.1
    assert found.weights(probs_of(*[0.5] * 10)) is None  # not many


# --- graph -----------------------------------------------------------------------------------------------------------


def test_the_graph_spreads_labels_and_is_trusted_by_the_labeled_rows_among_themselves():
    found = Graph("labels", num_classes=2, seed=0)
    found.compute(rows_at(0, 5, 90, 95, labels=[0, 0, 1, 1]), rows_at(2, 93), NOTHING)
    assert found.probs.shape == (2, 2)
    assert found.probs.argmax(axis=1).tolist() == [0, 1]
    assert (found.certainty > 0.1).all()
    # All four are right when held out: Wilson's lower end at z = 1 is 1 / 1.25, and chance is one half.
    assert found.trust == pytest.approx((0.8 - 0.5) / 0.5)
    mixed = found.adjust_labels(probs_of(0.5, 0.5))
    np.testing.assert_allclose(mixed, 0.4 * 0.5 + 0.6 * found.probs, rtol=1e-6)
    assert mixed.dtype == np.float32


def test_the_graph_weighs_rows_as_far_as_it_is_trusted():
    found = Graph("agreement", num_classes=2, seed=0)
    found.probs, found.certainty, found.trust = np.array([[0.75, 0.25], [0.25, 0.75]]), np.array([0.9, 0.1]), 0.5
    np.testing.assert_allclose(found.weights(probs_of(0.9, 0.9)), [0.5 + 0.5 * 0.75, 0.5 + 0.5 * 0.25])
    found.mode = "certainty"
    np.testing.assert_allclose(found.weights(probs_of(0.9, 0.9)), [0.5 + 0.5 * 0.9, 0.5 + 0.5 * 0.1])
    for mode in ("agreement", "certainty"):
        found.mode = mode
        np.testing.assert_array_equal(found.adjust_labels(probs_of(0.9, 0.9)), probs_of(0.9, 0.9))
    found.mode = "labels"
    assert found.weights(probs_of(0.9, 0.9)) is None


# --- class names -----------------------------------------------------------------------------------------------------


def test_class_names_that_fit_the_labels_are_multiplied_into_the_predictions():
    """The pool's scores are 1 and -1; of the two labeled rows the strengths cost 2.39, 1.20 and 0.63 nats."""
    found = ClassNames(["joy", "anger"], names_at(0, 90), seed=0)
    found.compute(rows_at(0, 90, labels=[0, 1]), rows_at(0, 90), rows_at(90))
    assert found.strength == 0.5
    np.testing.assert_allclose(found.log_odds, [[0.5, -0.5], [-0.5, 0.5]], atol=1e-6)
    np.testing.assert_allclose(found.held_out_log_odds, [[-0.5, 0.5]], atol=1e-6)
    adjusted = found.adjust_teacher(probs_of(0.2, 0.2))
    odds = np.e * 0.25
    np.testing.assert_allclose(adjusted[0, 0], odds / (1 + odds), rtol=1e-6)
    assert adjusted.dtype == np.float32
    np.testing.assert_allclose(found.adjust_held_out(probs_of(0.2))[0, 0], 0.25 / np.e / (1 + 0.25 / np.e), rtol=1e-6)
    found.in_teachers = False
    np.testing.assert_array_equal(found.adjust_teacher(probs_of(0.2, 0.2)), probs_of(0.2, 0.2))


def test_class_names_that_mislead_or_are_no_words_change_nothing():
    misleading = ClassNames(["joy", "anger"], names_at(90, 0), seed=0)
    nameless = ClassNames(["joy", "LABEL_1"], lambda texts: pytest.fail("embedded"), seed=0)
    for found in (misleading, nameless):
        found.compute(rows_at(0, 0, 90, labels=[0, 0, 1]), rows_at(0, 90), NOTHING)
        assert (found.strength, found.log_odds, found.held_out_log_odds) == (0.0, None, None)
        np.testing.assert_array_equal(found.adjust_teacher(probs_of(0.2, 0.2)), probs_of(0.2, 0.2))


# --- neighbours ------------------------------------------------------------------------------------------------------


def test_smoothing_mixes_the_nearest_rows_of_the_pool_in_with_equal_weights():
    found = Smoothing(0.25, seed=0)
    found.compute(rows_at(0, labels=[0]), rows_at(0, 10, 20), NOTHING)
    assert [set(row) for row in found.rows.tolist()] == [{1, 2}, {0, 2}, {0, 1}]
    adjusted = found.adjust_ensemble(probs_of(0.9, 0.4, 0.2))
    np.testing.assert_allclose(adjusted[:, 0], [0.75 * 0.9 + 0.25 * 0.3, 0.75 * 0.4 + 0.25 * 0.55, 0.3125], rtol=1e-6)
    assert adjusted.dtype == np.float32
    found.compute(rows_at(0, labels=[0]), rows_at(*range(12)), NOTHING)
    assert found.rows.shape == (12, 10)
    assert 11 not in found.rows[0]  # the farthest
    found.compute(rows_at(0, labels=[0]), rows_at(0), NOTHING)
    assert found.rows is None
    np.testing.assert_array_equal(found.adjust_ensemble(probs_of(0.9)), probs_of(0.9))


def test_neighbours_vote_as_the_teacher_predicts_them():
    """A row of the pool is not its own neighbour; a held-out row, which is not in the pool, may be near to all."""
    found = Neighbors(seed=0)
    found.compute(rows_at(0, labels=[0]), rows_at(0, 10, 20), rows_at(4, 60))
    assert [set(row) for row in found.rows.tolist()] == [{1, 2}, {0, 2}, {0, 1}]
    assert found.held_out_rows.tolist() == [[0, 1], [2, 1]]  # as many neighbours as a row of the pool has
    teacher = probs_of(0.9, 0.4, 0.2)
    np.testing.assert_allclose(found.vote(teacher)[:, 0], [0.3, 0.55, 0.65], rtol=1e-6)
    np.testing.assert_allclose(found.held_out_vote(teacher)[:, 0], [0.65, 0.3], rtol=1e-6)
    found.compute(rows_at(0, labels=[0]), rows_at(*range(12)), rows_at(11.4))
    assert found.held_out_rows.tolist() == [list(range(11, 1, -1))]
    found.compute(rows_at(0, labels=[0]), rows_at(0), NOTHING)
    np.testing.assert_array_equal(found.vote(probs_of(0.9)), probs_of(0.9))  # a pool of one row has no neighbours
    assert found.held_out_vote(probs_of(0.9)).shape == (0, 2)


def test_neighbours_of_a_pool_of_one_row_have_votes_for_each_held_out_row():
    found = Neighbors(seed=0)
    found.compute(rows_at(0, labels=[0]), rows_at(0), rows_at(10, 20))
    np.testing.assert_allclose(found.held_out_vote(probs_of(0.9))[:, 0], [0.9, 0.9], rtol=1e-6)


# --- probe -----------------------------------------------------------------------------------------------------------


def test_the_probe_votes_by_its_own_predictions():
    found = BackboneProbe(num_classes=2, seed=0)
    found.compute(rows_at(0, 90, labels=[0, 1]), rows_at(0, 45, 90), rows_at(90))
    first = found.vote(probs_of(0.1, 0.1, 0.1))[:, 0]
    assert first[0] > 0.6
    np.testing.assert_allclose([first[1], first[2]], [0.5, 1 - first[0]], atol=1e-5)  # by symmetry
    np.testing.assert_allclose(found.held_out_vote(probs_of(0.1)), found.probs[2:])


def test_class_names_change_the_probe_and_not_the_teachers_where_there_is_one():
    names = ClassNames(["joy", "anger"], names_at(0, 90), seed=0, in_teachers=False)
    alone, both = BackboneProbe(num_classes=2, seed=0), BackboneProbe(num_classes=2, seed=0, names=names)
    data = rows_at(0, 90, labels=[0, 1]), rows_at(0, 90), rows_at(90)
    for signal in (names, alone, both):
        signal.compute(*data)
    before, after = (signal.probs[0, 0] / signal.probs[0, 1] for signal in (alone, both))
    assert after == pytest.approx(before * np.e, rel=1e-4)
    np.testing.assert_allclose(both.held_out_probs, both.probs[1:], rtol=1e-6)
    np.testing.assert_array_equal(names.adjust_held_out(probs_of(0.2)), probs_of(0.2))


# --- all together ----------------------------------------------------------------------------------------------------


@pytest.fixture
def build(tmp_path):
    """Builds the signals of some settings, at two class names."""

    def run(**settings) -> EmbeddingSignals | None:
        args = SelfTrainingConfig(output_dir=str(tmp_path), use_cpu=True, **settings)
        return EmbeddingSignals.build(args, ["joy", "anger"], names_at(0, 90), seed=0)

    return run


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"ood_filter": True}, []),
        ({"label_spreading": "agreement"}, ["graph"]),
        ({"label_name_prior": True}, ["class_names"]),
        ({"knn_smoothing": 0.2}, ["smoothing"]),
        ({"neighbor_votes": True}, ["neighbors"]),
        ({"backbone_probe": True, "label_name_prior": True}, ["class_names", "backbone_probe"]),
    ],
)
def test_the_settings_choose_the_signals_and_any_brings_the_out_of_distribution_test(build, settings, names):
    found = build(**settings)
    assert [signal.name for signal in found] == ["out_of_distribution", *names]
    assert found.out_of_distribution.active == settings.get("ood_filter", False)
    if "backbone_probe" in names:
        assert found["backbone_probe"].names is found["class_names"]
        assert not found["class_names"].in_teachers


def test_settings_that_ask_for_nothing_get_none(build):
    assert build() is None
    assert signal_facts(None) == {"ood_fraction": None, "graph_trust": None, "label_name_strength": None}


EVERYTHING = {
    "label_spreading": "labels",
    "label_name_prior": True,
    "knn_smoothing": 0.25,
    "backbone_probe": True,
    "neighbor_votes": True,
    "ood_filter": True,
}


def test_what_was_computed_comes_back_from_plain_arrays(build):
    first, second = build(**EVERYTHING), build(**EVERYTHING)
    first.compute(rows_at(0, 5, 90, 95, labels=[0, 0, 1, 1]), rows_at(2, 50, 93), rows_at(90))
    second.load_state_dict({name: np.asarray(value) for name, value in first.state_dict().items()})
    assert signal_facts(second) == signal_facts(first)
    assert type(second["graph"].trust) is float
    probs = probs_of(0.3, 0.6, 0.8)
    for name in ("adjust_ensemble", "adjust_labels", "weights"):
        np.testing.assert_array_equal(getattr(second, name)(probs), getattr(first, name)(probs))
    assert second.members == ["teachers", "backbone_probe", "neighbors"]
    for votes in (lambda signals: signals.votes(probs), lambda signals: signals.held_out_votes(probs[:1], probs)):
        before, again = votes(first), votes(second)
        assert list(again) == list(before) == second.members
        for name, values in before.items():
            np.testing.assert_array_equal(again[name], values)


def test_members_predict_beside_the_teachers_that_the_names_have_changed(build):
    """Without a probe the names change the teachers, and the neighbours are predicted by these."""
    found = build(label_name_prior=True, neighbor_votes=True)
    found.compute(rows_at(0, 90, labels=[0, 1]), rows_at(0, 90), rows_at(90))
    odds = np.e * 0.25
    changed = [odds / (1 + odds), 0.25 / np.e / (1 + 0.25 / np.e)]
    of_pool = found.votes(probs_of(0.2, 0.2))
    np.testing.assert_allclose(of_pool["teachers"][:, 0], changed, rtol=1e-5)
    np.testing.assert_allclose(of_pool["neighbors"][:, 0], changed[::-1], rtol=1e-5)
    held_out = found.held_out_votes(probs_of(0.2), probs_of(0.2, 0.2))
    np.testing.assert_allclose(held_out["teachers"][:, 0], changed[1:], rtol=1e-5)
    np.testing.assert_allclose(held_out["neighbors"][:, 0], changed[1:], rtol=1e-5)  # one neighbour: at 90 degrees


class FirstClass(Signal):
    """A signal of a test: all rows near the first axis belong to the first class, and no other row counts."""

    name, computed = "first_class", ("near",)
    facts: ClassVar[dict[str, str]] = {"near_fraction": "fraction"}

    @staticmethod
    def wanted(args):
        return True

    @classmethod
    def build(cls, settings):
        return cls()

    def compute(self, labeled, pool, held_out):
        self.near = pool.last[:, 0] > 0.9

    @property
    def fraction(self):
        return float(self.near.mean())

    def adjust_labels(self, probs):
        return np.where(self.near[:, None], [1.0, 0.0], probs).astype(probs.dtype)

    def weights(self, probs):
        return self.near


def test_a_new_signal_is_one_class_and_one_entry(build, monkeypatch):
    monkeypatch.setattr(signals_module, "SIGNALS", (*SIGNALS, FirstClass))
    found, again = build(), build()
    found.compute(rows_at(0, 90, labels=[0, 1]), rows_at(3, 93), NOTHING)
    again.load_state_dict(found.state_dict())
    assert signal_facts(again)["near_fraction"] == 0.5
    np.testing.assert_allclose(again.adjust_labels(probs_of(0.2, 0.2)), probs_of(1.0, 0.2))
    np.testing.assert_array_equal(again.weights(probs_of(0.2, 0.2)), [1, 0])
