"""Files of the rounds: saved values are read back, and a finished round has no checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hfssl.inference.predictions import MCDropoutResult
from hfssl.methods.self_training.pseudo_labels import PseudoLabels
from hfssl.methods.self_training.round_store import RoundStore
from hfssl.methods.self_training.teachers import EnsemblePrediction
from hfssl.models.loading import load_classifier


@pytest.fixture
def labels():
    targets, weights = np.eye(3, dtype=np.float32)[[1, 2]], np.array([1.5, 0.5], dtype=np.float32)
    return PseudoLabels(np.array([0, 3]), targets, weights, np.array([1, 0, 0, 2]), np.zeros(4))


def test_what_teachers_predict_and_students_are_taught_comes_back(tmp_path, labels):
    result = MCDropoutResult.of_one_pass(np.array([[0.2, 0.8], [0.6, 0.4]], dtype=np.float32))
    ensemble, prior = EnsemblePrediction.of([result, result]), np.array([0.2, 0.3, 0.5])
    store = RoundStore(tmp_path)
    store[0].save_labels(labels, prior, ensemble)
    store[1].save_labels(labels, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-0", "round-1"]
    again, again_prior = RoundStore(tmp_path)[0].load_labels()
    for name, values in vars(labels).items():
        np.testing.assert_array_equal(getattr(again, name), values)
    np.testing.assert_array_equal(again_prior, prior)
    assert RoundStore(tmp_path)[1].load_labels()[1] is None
    kept = store[0].load_ensemble()
    np.testing.assert_array_equal(kept.teacher_probs, ensemble.teacher_probs)
    for name, values in vars(ensemble.combined).items():
        np.testing.assert_array_equal(getattr(kept.combined, name), values)
    assert not (tmp_path / "round-1" / "ensemble.npz").exists()


def test_a_student_comes_back_with_its_curve(tmp_path, tiny_backbone, tiny_tokenizer):
    model, curve = load_classifier(tiny_backbone, ["a", "b"], seed=1), [{"loss": 0.5, "round": 0}]
    place = RoundStore(tmp_path)[0]
    assert place.load_curve() == []
    place.save_student(model, tiny_tokenizer, ["a", "b"], curve)
    assert place.load_curve() == curve
    again = place.load_student()
    assert again.config.id2label == {0: "a", 1: "b"}
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_a_finished_round_has_its_line_and_no_checkpoints(tmp_path):
    store = RoundStore(tmp_path)
    assert store.records() == []
    for number in (0, 1):
        store[number].checkpoints.mkdir(parents=True)
        (store[number].checkpoints / "weights").write_text("large")
        record = {"round": number, "selected": 3, "seconds": 1.5}
        assert store.finish(record) == record
        assert not store[number].checkpoints.exists()
    assert RoundStore(tmp_path).records() == [{"round": n, "selected": 3, "seconds": 1.5} for n in (0, 1)]
    store[1].checkpoints.mkdir()
    store.tidy(1)  # after a kill between the line and the removal
    assert not store[1].checkpoints.exists()
    store.tidy(1)
