"""Evidence for the verdict, joined of held-out rows and of the labels in folds."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.pipeline.held_out import Evidence, _joined


def test_spread_and_shift_of_joined_evidence_are_means_over_its_rows():
    """Ten held-out rows judge the final models themselves, thirty in folds those of the folds."""
    held_out = Evidence({"labels_only": np.full((10, 2), 0.5), "self_training": np.full((10, 2), 0.2)}, np.zeros(10))
    folds = Evidence(
        {"self_training": np.full((30, 2), 0.7), "labels_only": np.full((30, 2), 0.1)},
        np.ones(30),
        0.02,
        -0.01,
        ["By folds."],
    )
    found = _joined([held_out, folds], ["labels_only", "self_training"])
    assert found.difference == pytest.approx({"spread": 0.75 * 0.02, "shift": -0.75 * 0.01})
    assert found.remarks == ["By folds."]
    assert found.labels.tolist() == [0] * 10 + [1] * 30
    assert found.probs["labels_only"][:, 0].tolist() == [0.5] * 10 + [0.1] * 30
    assert found.probs["self_training"][:, 0].tolist() == [0.2] * 10 + [0.7] * 30


def test_evidence_of_no_part_has_no_rows():
    found = _joined([], ["labels_only", "self_training"])
    assert len(found.labels) == 0
    assert {name: len(rows) for name, rows in found.probs.items()} == {"labels_only": 0, "self_training": 0}
    assert (found.spread, found.shift, found.remarks) == (0.0, 0.0, [])
