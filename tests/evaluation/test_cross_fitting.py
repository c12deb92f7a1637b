"""Cross-fitting: folds, the models that predict each row, and the verdict on their predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

import hfssl.evaluation.cross_fitting
from hfssl.evaluation.cross_fitting import CrossFit, cross_fit, fold_numbers
from hfssl.tasks.registry import get_task

LABELS = np.repeat([0, 1], 6)


def test_folds_are_stratified_and_keep_groups_together():
    numbers = fold_numbers(LABELS, None, 3, seed=0)
    assert [np.bincount(LABELS[numbers == fold]).tolist() for fold in range(3)] == [[2, 2]] * 3
    groups = np.array(["a", "a", "b", "b", "", ""] * 2)
    numbers = fold_numbers(LABELS, groups, 2, seed=0)
    assert set(numbers) == {0, 1}
    assert all(len(set(numbers[groups == name])) == 1 for name in "ab")


def test_there_are_no_more_folds_than_rows_of_a_class_and_none_for_a_single_row():
    assert fold_numbers(np.array([0, 0, 1, 1, 1, 1]), None, 5, seed=0).max() == 1
    assert fold_numbers(np.array([0, 1, 1, 1]), None, 2, seed=0) is None
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
        (place / "rounds").mkdir(parents=True)
        return {"labels_only": Fold(fold, rows), "self_training": Fold(fold, rows)}

    monkeypatch.setattr(hfssl.evaluation.cross_fitting, "predict_logits", logits)
    numbers = fold_numbers(LABELS, None, 3, seed=0)
    cross_fit(tmp_path, labeled, proxy, numbers, models, None, get_task())
    found = CrossFit(tmp_path)
    assert found.folds == 3
    for name in ("labels_only", "self_training"):
        np.testing.assert_array_equal(found.probs[name].argmax(axis=1), numbers)
        # Models 0, 1 and 2 vote 0, 1 and 1: one pair of three agrees.
        assert found.agreement[name] == pytest.approx(1 / 3)
    assert not list(tmp_path.glob("fold-*/rounds"))  # models are large
    (tmp_path / "fold-1" / "cross_fit.npz").unlink()  # as if killed there
    cross_fit(tmp_path, labeled, proxy, numbers, models, None, get_task())
    assert trained == [0, 1, 2, 1]


def test_without_proxy_there_is_no_agreement(tmp_path):
    arrays = {f"{part}/{name}": np.zeros((2, 0, 3)) for name in ("a", "b") for part in ("labeled", "proxy")}
    np.savez(tmp_path / "cross_fit.npz", **arrays)
    assert CrossFit(tmp_path).agreement == {}
