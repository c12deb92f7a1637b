"""The files of the stage `folds`: votes in the order of the rows, and mixtures by other folds' labels."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.methods.self_training.votes import TEACHERS, Votes, mixed
from hfssl.pipeline.fold_store import FoldStore
from hfssl.runtime.files import PLACE
from hfssl.tasks.registry import get_task


def probs_of(*first: float) -> np.ndarray:
    return np.array([[p, 1 - p] for p in first], dtype=np.float32)


NUMBERS, LABELS = np.array([1, -1, 0, 0, 1]), np.array([0, 1, 0, 1, 1])
POOLS = [probs_of(0.9, 0.8, 0.7), probs_of(0.6, 0.5, 0.4)]


@pytest.fixture
def store(tmp_path) -> FoldStore:
    """Two folds of four units; each unit's votes name it: its number in tenths."""
    found = FoldStore(tmp_path, NUMBERS, LABELS, get_task())
    for fold, units in ((0, (0.2, 0.3)), (1, (0.0, 0.4))):
        votes = {TEACHERS: probs_of(*units), "backbone_probe": probs_of(*[1 - unit for unit in units])}
        assert not found.has_votes(fold)
        found.save_votes(fold, votes, POOLS[fold], {"unlabeled": POOLS[fold] / 2, "proxy": POOLS[fold][:1]})
        assert found.has_votes(fold)
    return found


def test_votes_come_in_the_order_of_the_rows_and_without_those_in_no_fold(store):
    votes = store.votes()
    assert votes.labels.tolist() == [0, 0, 1, 1]  # units 0, 2, 3 and 4
    np.testing.assert_allclose(votes.probs[TEACHERS][:, 0], [0.0, 0.2, 0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(votes.probs["backbone_probe"][:, 0], [1.0, 0.8, 0.7, 0.6], rtol=1e-6)


def test_the_votes_without_a_fold_leave_its_units_out(store):
    votes = store.votes(without=0)
    assert votes.labels.tolist() == [0, 1]
    np.testing.assert_allclose(votes.probs[TEACHERS][:, 0], [0.0, 0.4], rtol=1e-6)
    np.testing.assert_allclose(store.votes(without=1).probs[TEACHERS][:, 0], [0.2, 0.3], rtol=1e-6)


def test_the_pool_of_a_fold_is_that_of_the_teacher_that_has_seen_nothing_of_it(store):
    np.testing.assert_array_equal(store.pool(0), POOLS[0])
    np.testing.assert_array_equal(store.pool(1), POOLS[1])
    for found, pool in zip(store.refitted(), POOLS, strict=True):
        np.testing.assert_array_equal(found, pool / 2)
    assert [len(found) for found in store.refitted("proxy")] == [1, 1]


def test_a_units_mixture_is_weighted_by_the_labels_of_other_folds_only(tmp_path):
    """The probe is right on fold 0 and wrong on fold 1: on fold 0 it has little weight, on fold 1 much."""
    numbers, labels = np.repeat([0, 1], 12), np.zeros(24, dtype=np.int64)
    store = FoldStore(tmp_path, numbers, labels, get_task())
    half = probs_of(*[0.5] * 12)
    for fold, probe in ((0, 0.95), (1, 0.05)):
        votes = {TEACHERS: half, "backbone_probe": probs_of(*[probe] * 12)}
        store.save_votes(fold, votes, half, {"unlabeled": half})
    found = store.stacked()
    on_0 = Votes({TEACHERS: half, "backbone_probe": probs_of(*[0.95] * 12)}, labels[:12])
    on_1 = Votes({TEACHERS: half, "backbone_probe": probs_of(*[0.05] * 12)}, labels[12:])
    assert on_1.weights["backbone_probe"] < 0.35 < 0.5 < on_0.weights["backbone_probe"]
    np.testing.assert_allclose(found[:12], mixed(on_0.probs, on_1.weights), rtol=1e-6)
    np.testing.assert_allclose(found[12:], mixed(on_1.probs, on_0.weights), rtol=1e-6)
    # Whatever the labels of a fold are, its own mixture stays.
    other = FoldStore(tmp_path, numbers, np.where(numbers == 0, 1, 0), get_task()).stacked()
    np.testing.assert_array_equal(other[:12], found[:12])
    assert np.abs(other[12:] - found[12:]).max() > 0.05


def test_what_models_of_all_labels_say_is_stored_with_the_mixture(store, tmp_path):
    assert not store.has_everyone()
    assert store.stacked_part("proxy") is None
    teacher = {"unlabeled": probs_of(0.1, 0.2, 0.3), "proxy": probs_of(0.4)}
    votes = {"proxy": {TEACHERS: probs_of(0.5), "backbone_probe": probs_of(0.9)}}
    store.save_everyone(teacher, votes)
    assert store.has_everyone()
    np.testing.assert_array_equal(store.teachers_of_the_pool()[0], teacher["unlabeled"])
    assert len(store.teachers_of_the_pool()) == 3
    weight = store.votes().weights["backbone_probe"]
    np.testing.assert_allclose(store.stacked_part("proxy")[:, 0], [(1 - weight) * 0.5 + weight * 0.9], rtol=1e-6)
    assert store.stacked_part("test") is None
    with np.load(tmp_path / "logits.npz") as saved:
        assert set(saved) - {PLACE} == {
            *(f"{name}/{part}" for name in (TEACHERS, "backbone_probe") for part in ("labeled", "proxy")),
            *(f"{name}/{part}" for name in ("all-0", "contrastive-0", "contrastive-1") for part in teacher),
            f"weights/{TEACHERS}",
            "weights/backbone_probe",
            "rows",
        }
        np.testing.assert_allclose(np.exp(saved["all-0/proxy"].astype(float)), teacher["proxy"], rtol=1e-3)
        assert saved["rows"].tolist() == [0, 2, 3, 4]
        assert saved["teachers/labeled"].dtype == np.float16
        assert np.isfinite(saved["teachers/labeled"]).all()  # a probability of 0 among them


def test_the_models_of_a_fold_lie_where_they_are_looked_for(store, tmp_path):
    assert store.model("labels_only", 1) == tmp_path / "fold-1" / "labels_only-1" / "model"
