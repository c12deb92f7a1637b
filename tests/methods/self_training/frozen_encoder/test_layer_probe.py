"""Probes of several layers and the fit of their weights."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.methods.self_training.frozen_encoder.layer_probe import (
    LayerProbe,
    fit_layer_probe,
    upper_layers,
)


@pytest.mark.parametrize(("depth", "layers"), [(6, [4, 5, 6]), (12, [8, 10, 12]), (2, [1, 2]), (1, [1])])
def test_the_upper_third_is_probed(depth, layers):
    assert upper_layers(depth) == layers


def test_the_probabilities_of_the_layers_are_mixed():
    probe = LayerProbe(
        np.array([[[0.0], [np.log(3)]]] * 2), np.array([[0.0, 0.0], [100.0, 0.0]]), np.array([0.5, 0.5])
    )
    # Layer 1 gives 1/4 and 3/4, layer 2 is sure of the first class.
    np.testing.assert_allclose(probe.probs(np.ones((2, 1, 1))), [[0.625, 0.375]])


def test_the_layer_that_knows_the_classes_has_the_larger_weight():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 8)
    noise = generator.normal(size=(2, 24, 5))
    noise[1, np.arange(24), labels] += 5
    noise /= np.linalg.norm(noise, axis=-1, keepdims=True)
    probe = fit_layer_probe(noise.astype(np.float32), labels, 3, seed=0)
    assert probe.mixture_weights[1] > 0.8
    assert probe.mixture_weights.sum() == pytest.approx(1)
    assert (probe.probs(noise).argmax(axis=1) == labels).mean() > 0.9


def test_one_label_a_class_cannot_be_held_out():
    rows = np.eye(2, dtype=np.float32)[None].repeat(2, axis=0)
    probe = fit_layer_probe(rows, np.array([0, 2]), 3, seed=0)
    np.testing.assert_allclose(probe.mixture_weights, [0.5, 0.5])
    assert probe.probs(rows)[:, 1].max() < 1e-6  # a class without labels is never predicted
