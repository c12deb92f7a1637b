"""What the untrained backbone says, joined to what teachers say."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.neighborhood import Neighborhood, evidence_weight


def test_the_evidence_is_the_ratio_of_the_likelihoods():
    # Two rows: 0.8 * 0.5 against 0.4 * 0.5, so two to one.
    first, second = np.array([[0.8, 0.2], [0.5, 0.5]]), np.array([[0.4, 0.6], [0.5, 0.5]])
    assert evidence_weight(first, second, np.array([0, 1])) == pytest.approx(2 / 3)
    assert evidence_weight(second, first, np.array([0, 1])) == pytest.approx(1 / 3)


def test_without_held_out_rows_the_odds_are_even():
    assert evidence_weight(None, np.zeros((0, 2)), np.zeros(0, dtype=np.int64)) == 0.5


def test_the_probe_is_mixed_in_and_the_names_are_multiplied():
    around = Neighborhood(
        None,
        None,
        0.0,
        np.zeros(1, dtype=bool),
        name_strength=0.5,
        name_log_odds=np.log([[2.0, 1.0]]).astype(np.float32),
        probe_probs=np.array([[0.9, 0.1]]),
    )
    # 0.75 * 0.1 + 0.25 * 0.9 = 0.3 against 0.7; twice the first.
    joined = around.joined(np.array([[0.1, 0.9]], dtype=np.float32), 0.25)
    np.testing.assert_allclose(joined, [[0.6 / 1.3, 0.7 / 1.3]], rtol=1e-6)
    assert joined.dtype == np.float32


def test_it_comes_back_from_disk_as_it_was(tmp_path):
    around = Neighborhood(None, None, 0.0, np.array([True, False]), probe_probs=np.eye(2))
    around.save(tmp_path / "around.npz")
    again = Neighborhood.load(tmp_path / "around.npz")
    assert again.names is None
    assert again.probe_held_out is None
    assert again.trust == again.name_strength == 0
    np.testing.assert_array_equal(again.probe_probs, np.eye(2))
    np.testing.assert_array_equal(again.novel, [True, False])
