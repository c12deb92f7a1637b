"""The ensemble of teachers: predictions combined, changed by signals, merged with another ensemble's, and saved."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.inference.predictions import MCDropoutResult
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.signals import BackboneProbe, EmbeddingSignals, Smoothing
from hfssl.methods.self_training.teachers import EnsemblePrediction, Teacher, score_pool


def predicted(probs: list[list[float]]) -> MCDropoutResult:
    table = np.array(probs, dtype=np.float32)
    return MCDropoutResult(table, table, np.zeros_like(table), table, np.zeros(len(table), np.float32))


def probe(probs) -> BackboneProbe:
    signal = BackboneProbe(num_classes=2, seed=0)
    signal.probs = np.asarray(probs, dtype=np.float64)
    return signal


def smoothing(share: float) -> Smoothing:
    signal = Smoothing(share, seed=0)
    signal.rows = np.array([[1, 2], [0, 2], [0, 1]], dtype=np.int32)
    return signal


def test_the_probe_is_mixed_into_the_mean_of_the_teachers():
    ensemble = EnsemblePrediction.of([predicted([[0.8, 0.2]]), predicted([[0.6, 0.4]])])
    np.testing.assert_allclose(ensemble.combined.deterministic_probs, [[0.7, 0.3]], rtol=1e-6)
    changed = ensemble.with_signals(EmbeddingSignals([probe([[0.1, 0.9]])]), {"backbone_probe": 0.25})
    np.testing.assert_allclose(changed.teacher_probs, [[[0.8, 0.2]], [[0.6, 0.4]]])  # each teacher's stays as it is
    np.testing.assert_allclose(
        changed.combined.deterministic_probs, [[0.55, 0.45]], rtol=1e-6
    )  # 0.75 * 0.7 + 0.25 * 0.1
    np.testing.assert_allclose(changed.combined.mean_probs, ensemble.combined.mean_probs)


def test_a_rows_nearest_neighbours_count_after_the_probe():
    """Row 0 has rows 1 and 2 as neighbours, with a mean of 0.3; a fifth of the weight is theirs."""
    rows = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]
    changed = EnsemblePrediction.of([predicted(rows)]).with_signals(EmbeddingSignals([smoothing(0.2)]), {})
    assert changed.combined.deterministic_probs[0, 0] == pytest.approx(0.8 * 0.9 + 0.2 * 0.3)
    np.testing.assert_allclose(changed.combined.deterministic_probs.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(changed.teacher_probs[0], rows)
    both = EmbeddingSignals([smoothing(0.2), probe(1 - np.array(rows))])
    changed = EnsemblePrediction.of([predicted(rows)]).with_signals(both, {"backbone_probe": 0.5})
    np.testing.assert_allclose(changed.combined.deterministic_probs, 0.5, rtol=1e-6)


def test_teachers_without_passes_are_uncertain_where_they_disagree():
    """Without dropout each teacher is one pass: BALD is log 2 for two that are each sure of another class."""
    combined = EnsemblePrediction.of(
        [predicted([[1.0, 0.0], [1.0, 0.0]]), predicted([[0.0, 1.0], [1.0, 0.0]])]
    ).combined
    np.testing.assert_allclose(combined.bald, [np.log(2), 0], atol=1e-6)
    np.testing.assert_allclose(combined.predictive_variance, [[0.25, 0.25], [0, 0]], atol=1e-6)


def test_a_new_teacher_has_half_of_the_weight_when_it_is_merged_with_an_ensemble():
    three = EnsemblePrediction.of([predicted([[0.9, 0.1]])] * 3)
    both = three.merged(EnsemblePrediction.of([predicted([[0.1, 0.9]])]))
    assert both.teacher_probs.shape == (4, 1, 2)
    np.testing.assert_allclose(both.combined.deterministic_probs, [[0.5, 0.5]])
    # Two kinds of passes, at 0.9 and at 0.1: a variance of 0.4^2, and BALD is log 2 minus the entropy of each.
    np.testing.assert_allclose(both.combined.predictive_variance, [[0.16, 0.16]], atol=1e-6)
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(both.combined.bald, [np.log(2) - entropy], atol=1e-6)


def test_they_come_back_from_disk_as_they_were(tmp_path):
    ensemble = EnsemblePrediction.of([predicted([[0.8, 0.2]]), predicted([[0.6, 0.4]])])
    ensemble.save(tmp_path / "ensemble.npz")
    again = EnsemblePrediction.load(tmp_path / "ensemble.npz")
    np.testing.assert_array_equal(again.teacher_probs, ensemble.teacher_probs)
    for name, values in vars(ensemble.combined).items():
        np.testing.assert_array_equal(getattr(again.combined, name), values)


def test_a_teacher_whose_predictions_of_the_pool_are_known_does_not_score_it(tmp_path):
    """It needs no model that could."""
    probs = np.array([[0.8, 0.2], [0.3, 0.7]], dtype=np.float32)
    args = SelfTrainingConfig(output_dir=str(tmp_path), use_cpu=True, mc_passes=3)
    [found] = score_pool([Teacher(None, pool_probs=probs)], None, None, args, stream=0, title=None)
    np.testing.assert_array_equal(found.deterministic_probs, probs)
    np.testing.assert_array_equal(found.mean_probs, probs)
    np.testing.assert_array_equal(found.predictive_variance, np.zeros_like(probs))
    np.testing.assert_allclose(found.bald, 0, atol=1e-6)  # one pass cannot disagree with itself
