"""Cross-fitting: folds, the models that predict each row, and the verdict on their predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

import hfssl.evaluation.cross_fitting
from hfssl.evaluation.cross_fitting import CrossFit, cross_fit, fold_numbers
from hfssl.runtime.files import write_arrays

LABELS = np.repeat([0, 1], 6)


def test_folds_are_stratified_and_keep_groups_together():
    numbers = fold_numbers(LABELS, None, 3, seed=0)
    assert [np.bincount(LABELS[numbers == fold]).tolist() for fold in range(3)] == [[2, 2]] * 3
    groups = np.array(["a", "a", "b", "b", "", ""] * 2)
    numbers = fold_numbers(LABELS, groups, 2, seed=0)
    assert set(numbers) == {0, 1}
    assert all(len(set(numbers[groups == name])) == 1 for name in "ab")


def test_there_are_no_more_folds_than_rows_of_a_class():
    """Three rows of each class: five folds would leave some of them empty."""
    few = np.repeat([0, 1], 3)
    numbers = fold_numbers(few, None, 5, seed=0)
    assert [np.bincount(few[numbers == fold]).tolist() for fold in range(3)] == [[1, 1]] * 3


def test_every_training_part_holds_each_class_and_no_fold_is_empty():
    """Whatever the counts and the groups are."""
    generator = np.random.default_rng(0)
    for trial in range(60):
        counts = generator.integers(2, 12, size=generator.integers(2, 6))
        labels = generator.permutation(np.repeat(np.arange(len(counts)), counts))
        groups = None if trial % 2 else generator.integers(0, max(2, len(labels) // 2), len(labels)).astype(str)
        numbers = fold_numbers(labels, groups, int(generator.integers(2, 7)), seed=trial)
        if numbers is None:
            continue
        judged = set(labels[numbers >= 0])
        for fold in range(numbers.max() + 1):
            assert (numbers == fold).any()
            assert set(labels[numbers != fold]) == set(labels) >= judged
        if groups is not None:
            in_folds = numbers >= 0
            assert all(len(set(numbers[in_folds & (groups == name)])) <= 1 for name in set(groups))


def test_the_rows_of_a_class_with_one_row_or_one_group_are_in_no_fold():
    """Every model learns from them: a model that has never seen a class cannot be judged by it."""
    labels = np.array([0, 1, 1, 1, 2, 2, 2, 2])
    numbers = fold_numbers(labels, None, 2, seed=0)
    assert numbers[0] == -1
    assert set(numbers[1:]) == {0, 1}
    groups = np.array(["", "a", "a", "a", "", "", "", ""])
    assert fold_numbers(labels, groups, 2, seed=0) is None  # two classes of one unit, of three: the typical has one
    labels, groups = np.append(labels, [3, 3, 3]), np.append(groups, ["", "", ""])
    assert fold_numbers(labels, groups, 2, seed=0) is None  # units: 1, 1, 4 and 3, with a median of 2
    labels, groups = np.append(labels, [4, 4, 4]), np.append(groups, ["", "", ""])
    numbers = fold_numbers(labels, groups, 2, seed=0)
    assert numbers[:4].tolist() == [-1] * 4
    assert set(numbers[4:]) == {0, 1}


def test_there_are_no_folds_where_the_typical_class_has_fewer_than_three_rows():
    assert fold_numbers(np.repeat([0, 1, 2], 2), None, 2, seed=0) is None
    assert fold_numbers(np.repeat([0, 1, 2], [2, 2, 9]), None, 2, seed=0) is None
    assert fold_numbers(np.repeat([0, 1, 2], [2, 3, 3]), None, 2, seed=0) is not None
    assert fold_numbers(np.array([0, 1, 1, 1]), None, 2, seed=0) is None  # one class could be judged, by itself
    assert fold_numbers(np.array([0, 0, 1, 1]), np.array(["a", "a", "", ""]), 2, seed=0) is None


class Fold:
    """A model that knows which rows it was trained on, and votes for its number everywhere."""

    def __init__(self, number: int, rows: Dataset):
        self.number, self.seen = number, set(rows["id"])


def test_each_row_is_judged_by_the_models_that_have_not_seen_it(tmp_path, monkeypatch):
    labeled = Dataset.from_dict({"id": list(range(12)), "labels": LABELS.tolist()})
    proxy = Dataset.from_dict({"id": [100, 101], "labels": [-1, -1]})
    asked, trained = [], []

    def logits(model: Fold, rows: Dataset, tokenizer) -> np.ndarray:
        assert not model.seen & set(rows["id"])
        asked.extend((model.number, row) for row in rows["id"])
        return np.eye(4, dtype=np.float32)[[model.number if row < 100 else min(model.number, 1) for row in rows["id"]]]

    def models(place: Path, fold: int, rows: Dataset) -> dict[str, Fold]:
        trained.append(fold)
        assert set(rows["id"]) == set(np.flatnonzero(numbers != fold).tolist())
        (place / "rounds").mkdir(parents=True)
        return {"labels_only": Fold(fold, rows), "self_training": Fold(fold, rows)}

    monkeypatch.setattr(hfssl.evaluation.cross_fitting, "predict_logits", logits)
    numbers = fold_numbers(LABELS, None, 3, seed=0)
    cross_fit(tmp_path, labeled, {"proxy": proxy}, numbers, models, None)
    found = CrossFit(tmp_path)
    for name in ("labels_only", "self_training"):
        np.testing.assert_array_equal(found.probs[name].argmax(axis=1), numbers)
        # Models 0, 1 and 2 vote 0, 1 and 1: one pair of three agrees.
        assert found.agreement[name] == pytest.approx(1 / 3)
    assert not list(tmp_path.glob("fold-*/rounds"))  # models are large
    (tmp_path / "fold-1" / "cross_fit.npz").unlink()  # as if killed there
    cross_fit(tmp_path, labeled, {"proxy": proxy}, numbers, models, None)
    assert trained == [0, 1, 2, 1]


def test_rows_in_no_fold_are_learned_from_in_each_and_have_no_prediction(tmp_path, monkeypatch):
    labeled = Dataset.from_dict({"id": list(range(6)), "labels": [0, 0, 0, 1, 1, 1]})
    numbers = np.array([1, -1, 0, 0, 1, -1])
    seen = {}

    def models(place: Path, fold: int, rows: Dataset) -> dict[str, Fold]:
        seen[fold] = sorted(rows["id"])
        (place / "labels_only-0").mkdir(parents=True)
        return {"labels_only": Fold(fold, rows)}

    def logits(model: Fold, rows: Dataset, tokenizer) -> np.ndarray:
        return np.array([[row, model.number] for row in rows["id"]], dtype=np.float32)

    monkeypatch.setattr(hfssl.evaluation.cross_fitting, "predict_logits", logits)
    parts = {"proxy": Dataset.from_dict({"id": [7]}), "test": Dataset.from_dict({"id": [8, 9]})}
    cross_fit(tmp_path, labeled, parts, numbers, models, None, keep_models=True)
    assert seen == {0: [0, 1, 4, 5], 1: [1, 2, 3, 5]}
    found = CrossFit(tmp_path)
    # In the order of the rows, each by the model that was trained without it.
    assert found.logits["labels_only"].tolist() == [[0, 1], [2, 0], [3, 0], [4, 1]]
    assert found.of_part("test")["labels_only"].tolist() == [[[8, 0], [9, 0]], [[8, 1], [9, 1]]]
    assert found.of_part("proxy")["labels_only"].shape == (2, 1, 2)
    assert len(list(tmp_path.glob("fold-*/labels_only-0"))) == 2  # the models that later stages use stay


def test_without_proxy_there_is_no_agreement(tmp_path):
    arrays = {f"{part}/{name}": np.zeros((2, 0, 3)) for name in ("a", "b") for part in ("labeled", "proxy")}
    write_arrays(tmp_path / "cross_fit.npz", arrays)
    assert CrossFit(tmp_path).agreement == {}
