"""Pseudo-labels: the rows that a student is trained on, and files."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from hfssl.methods.self_training.pseudo_labels import PseudoLabels

LABELS = PseudoLabels(
    rows=np.array([0, 2]),
    target_probs=np.array([[0.75, 0.25], [0.0, 1.0]], dtype=np.float32),
    weights=np.array([1.5, 0.5], dtype=np.float32),
    predicted=np.array([0, 0, 1]),
    bald=np.array([0.1, 0.2, 0.3]),
)


def test_a_student_gets_the_selected_rows_with_targets_and_weights():
    rows = LABELS.training_rows(Dataset.from_dict({"input_ids": [[5], [6], [7]]}))
    assert rows["input_ids"][:] == [[5], [7]]
    assert rows["pseudo_probs"][:] == [[0.75, 0.25], [0.0, 1.0]]
    assert rows["weight"][:] == [1.5, 0.5]


def test_it_comes_back_from_disk_with_the_other_arrays(tmp_path):
    LABELS.save(tmp_path / "labels.npz", class_prior=np.array([0.5, 0.5]), nothing=None)
    again, more = PseudoLabels.load(tmp_path / "labels.npz")
    for name, values in vars(LABELS).items():
        np.testing.assert_array_equal(getattr(again, name), values)
        assert getattr(again, name).dtype == values.dtype
    assert list(more) == ["class_prior"]
