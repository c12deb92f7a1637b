"""What the untrained backbone says, joined to what teachers say."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset

import hfssl.methods.self_training.frozen_encoder.label_names
import hfssl.methods.self_training.frozen_encoder.signals
from hfssl.data.tokenization import tokenize_dataset
from hfssl.methods.self_training.frozen_encoder.label_names import multiplied
from hfssl.methods.self_training.frozen_encoder.signals import Neighborhood, embed_layers, find_neighborhood, probe_say
from hfssl.models.loading import load_classifier


def test_the_probes_say_is_that_of_the_likeliest_mixture(monkeypatch):
    # One row, likelihoods 0.8 and 0.4, and 4 and 6 rows before: the fixed point of w = (2 w / (1 + w) + 4) / 11 is the
    # positive root of 11 w^2 + 5 w - 4 = 0.
    monkeypatch.setattr(
        hfssl.methods.self_training.frozen_encoder.signals, "fit_temperature", lambda scores, labels: 1.0
    )
    probe, teachers = np.array([[0.8, 0.2]]), np.array([[0.4, 0.6]])
    assert probe_say(probe, teachers, np.array([0])) == pytest.approx((-5 + np.sqrt(201)) / 22, abs=1e-5)


def test_being_too_sure_is_not_held_against_a_model_that_is_right_more_often(monkeypatch):
    labels = np.zeros(40, dtype=np.int64)
    sure = np.tile([[0.999, 0.001]], (40, 1))
    sure[:12] = [0.001, 0.999]  # 28 of 40 right, and sure of all
    unsure = np.tile([[0.55, 0.45]], (40, 1))
    unsure[:20] = [0.45, 0.55]  # 20 of 40 right, and sure of none
    assert probe_say(sure, unsure, labels) > 0.45 > probe_say(unsure, sure, labels)


def test_a_few_held_out_labels_do_not_silence_either():
    """18 labels that are twice as likely by the probe: the teachers, of whom more is expected, keep a third."""
    labels = np.tile([0, 1], 9)
    likely = np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    half = np.full((18, 2), 0.5)
    assert 0.5 < probe_say(likely, half, labels) < 0.8
    assert 0.1 < probe_say(half, likely, labels) < 0.4


def test_without_held_out_rows_the_say_is_that_of_earlier_runs():
    assert probe_say(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, dtype=np.int64)) == pytest.approx(0.4)


def around(**said) -> Neighborhood:
    return Neighborhood(None, None, 0.0, np.zeros(1, dtype=bool), **said)


def test_the_probe_is_mixed_in_and_names_without_a_probe_are_multiplied():
    teacher = np.array([[0.1, 0.9]], dtype=np.float32)
    joined = around(probe_probs=np.array([[0.9, 0.1]])).joined(teacher, 0.25)
    np.testing.assert_allclose(joined, [[0.3, 0.7]], rtol=1e-6)  # 0.75 * 0.1 + 0.25 * 0.9
    assert joined.dtype == np.float32
    joined = around(name_strength=0.5, name_log_odds=np.log([[2.0, 1.0]])).joined(teacher, 0.0)
    np.testing.assert_allclose(joined, [[0.2 / 1.1, 0.9 / 1.1]], rtol=1e-6)
    assert joined.dtype == np.float32


def test_neighbours_are_those_of_the_backbone_in_the_pool(tiny_backbone, tiny_tokenizer):
    texts = [f"{word} film number {i}" for i in range(8) for word in ("good", "bad")]
    rows = tokenize_dataset(Dataset.from_dict({"text": texts, "label": [0, 1] * 8}), tiny_tokenizer, 16)
    model = load_classifier(tiny_backbone, ["good", "bad"], seed=0)
    pool = embed_layers(model, rows.select(range(12)), tiny_tokenizer, probe=False)
    found = find_neighborhood(
        model, rows, pool, tiny_tokenizer, num_classes=2, graph=False, neighbors=True, seed=0
    ).neighbors
    assert found.shape == (12, 10)
    assert all(set(near) <= set(range(12)) - {row} and len(set(near)) == 10 for row, near in enumerate(found))
    alone = find_neighborhood(
        model, rows, pool[:, :1], tiny_tokenizer, num_classes=2, graph=False, neighbors=True, seed=0
    )
    probs = np.array([[0.9, 0.1]], dtype=np.float32)
    np.testing.assert_array_equal(alone.smoothed(probs, 0.3), probs)  # one row has no neighbours


@pytest.mark.parametrize("held_out", [0, 6])
def test_names_have_their_say_inside_the_probes(monkeypatch, tiny_backbone, tiny_tokenizer, held_out):
    """What is held out is asked of the same opinion as the pool: of the probe, multiplied by the names."""
    texts = [f"{word} film number {i}" for i in range(8) for word in ("good", "bad")]
    rows = tokenize_dataset(Dataset.from_dict({"text": texts, "label": [0, 1] * 8}), tiny_tokenizer, 16)
    model = load_classifier(tiny_backbone, ["good", "bad"], seed=0)
    monkeypatch.setattr(
        hfssl.methods.self_training.frozen_encoder.label_names, "choose_strength", lambda *_, **__: 0.5
    )

    def found(**asked) -> Neighborhood:
        arguments = {
            "num_classes": 2,
            "graph": False,
            "held_out": rows.select(range(held_out)),
            "seed": 0,
        } | asked
        pool = embed_layers(model, rows, tiny_tokenizer, probe=arguments.get("probe", False))
        return find_neighborhood(model, rows, pool, tiny_tokenizer, **arguments)

    names, probe = found(label_names=["good", "bad"]), found(probe=True)
    both = found(label_names=["good", "bad"], probe=True)
    assert probe.name_log_odds is both.name_log_odds is None
    assert both.name_strength == names.name_strength == 0.5
    np.testing.assert_allclose(both.probe_probs, multiplied(probe.probe_probs, names.name_log_odds), rtol=1e-4)
    assert np.abs(both.probe_probs - probe.probe_probs).max() > 0.01
    np.testing.assert_allclose(both.probe_held_out, both.probe_probs[:held_out], rtol=1e-4)


def test_it_comes_back_from_disk_as_it_was(tmp_path):
    around = Neighborhood(None, None, 0.0, np.array([True, False]), probe_probs=np.eye(2))
    around.save(tmp_path / "around.npz")
    again = Neighborhood.load(tmp_path / "around.npz")
    assert again.name_log_odds is None
    assert again.probe_held_out is None
    assert again.trust == again.name_strength == 0
    np.testing.assert_array_equal(again.probe_probs, np.eye(2))
    np.testing.assert_array_equal(again.novel, [True, False])
