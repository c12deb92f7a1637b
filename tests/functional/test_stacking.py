"""Stacking: mixture weights by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.functional.stacking import stacking_weights


def test_the_weights_are_those_of_the_likeliest_mixture():
    # Two rows of which each model is sure of one: with a pseudo-count of 1 for each, (1 + 1) / (2 + 2) is the weight
    # of both. If the first model is sure of both, the fixed point of w = (2 w / (w + (1 - w) / 2) + 1) / 4, whose rows
    # have likelihoods 1 and 1/2, is the root of 4 w (1 + w) = 4 w + 1 + w, that is of 4 w^2 - w - 1 = 0.
    sure, unsure = [0.9, 0.1], [0.1, 0.9]
    labels = np.array([0, 0])
    np.testing.assert_allclose(stacking_weights(np.array([[sure, unsure], [unsure, sure]]), labels), [0.5, 0.5])
    likely, half = [[1.0, 0.0]] * 2, [[0.5, 0.5]] * 2
    first = (1 + np.sqrt(17)) / 8
    found = stacking_weights(np.array([likely, half]), labels)
    np.testing.assert_allclose(found, [first, 1 - first], atol=1e-4)


def test_without_labels_the_weights_are_the_prior():
    nothing = np.zeros((2, 0, 2))
    np.testing.assert_allclose(stacking_weights(nothing, np.zeros(0, dtype=np.int64), (1.0, 3.0)), [0.25, 0.75])


def test_a_model_that_is_equally_likely_keeps_the_weight_of_its_prior():
    """Where all models predict the same, each label belongs to each in proportion to the prior."""
    same = np.array([[[0.7, 0.3], [0.4, 0.6]]] * 3)
    np.testing.assert_allclose(stacking_weights(same, np.array([0, 1]), (1.0, 2.0, 5.0)), [0.125, 0.25, 0.625])


def test_a_probability_of_zero_is_no_certainty():
    """A label that one model rules out is the other's; the pseudo-count of 1 leaves the first (0 + 1) of (1 + 2)."""
    found = stacking_weights(np.array([[[0.0, 1.0]], [[0.5, 0.5]]]), np.array([0]))
    np.testing.assert_allclose(found, [1 / 3, 2 / 3], atol=1e-5)
    assert found.sum() == pytest.approx(1)
