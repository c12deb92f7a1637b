"""Weights of pseudo-labels against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hfssl.functional.uncertainty import bald, predicted_class_variance
from hfssl.functional.weighting import (
    WEIGHTINGS,
    confidence,
    log_variance,
    normalize_to_mean_one,
    one_minus_bald,
    one_minus_entropy,
    pseudo_label_weights,
)

LOG2 = math.log(2)


# Two passes over three rows: sure of opposite classes; agreeing and unsure; agreeing and fairly sure.
TWO_PASSES = torch.tensor(
    [[[1.0, 0.0], [0.5, 0.5], [0.8, 0.2]], [[0.0, 1.0], [0.5, 0.5], [0.6, 0.4]]], dtype=torch.float64
)


def close(actual: torch.Tensor, expected: list, tolerance: float = 1e-12) -> bool:
    return torch.allclose(actual.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=tolerance)


def test_weights_by_hand():
    # -0.1 log(0.01) = 0.1 * 4.605170186; -0.1 log(1e-10) = 0.1 * 23.02585093.
    assert close(log_variance(torch.tensor([0.01, 0.0], dtype=torch.float64)), [0.4605170186, 2.302585093], 1e-8)
    probs = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.8, 0.2]], dtype=torch.float64)
    assert close(one_minus_entropy(probs), [0.0, 1.0, 1 - 0.500402423538188 / LOG2])
    assert close(one_minus_bald(torch.tensor([0.0, LOG2]), 2), [1.0, 0.0], 1e-6)
    assert close(confidence(probs), [0.5, 1.0, 0.8])


def test_weights_have_mean_one_over_the_selected_rows():
    assert close(normalize_to_mean_one(torch.tensor([1.0, 2.0, 3.0])), [0.5, 1.0, 1.5])
    assert torch.equal(normalize_to_mean_one(torch.zeros(3)), torch.zeros(3))


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_every_weighting_trusts_a_sure_row_at_least_as_much_as_an_unsure_one(name):
    sure, unsure = torch.full((3, 1, 2), 0.5), TWO_PASSES.float()[:, :1]
    sure[..., 0], sure[..., 1] = 0.99, 0.01
    unsure = torch.cat([unsure, unsure[:1]])
    passes = torch.cat([sure, unsure], dim=1)
    mean = passes.mean(dim=0)
    variance = predicted_class_variance(passes, mean.argmax(dim=-1))
    weights = pseudo_label_weights(name, mean, variance, bald(passes))
    assert weights.mean().item() == pytest.approx(1.0)
    assert weights[0] == weights[1] if name == "uniform" else weights[0] > weights[1]


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_weights_by_name_before_they_are_scaled(name):
    # Row 0: probabilities .8 and .2, variance .01, BALD half of log 2; row 1: all passes agree on class 0.
    probs = torch.tensor([[0.8, 0.2], [1.0, 0.0]], dtype=torch.float64)
    variance, bald_values = torch.tensor([[0.01, 0.0], [LOG2 / 2, 0.0]], dtype=torch.float64)
    expected = {
        "log_variance": [0.4605170186, 2.302585093],
        "one_minus_entropy": [1 - 0.500402423538188 / LOG2, 1.0],
        "one_minus_bald": [0.5, 1.0],
        "confidence": [0.8, 1.0],
        "uniform": [1.0, 1.0],
    }[name]
    plain = pseudo_label_weights(name, probs, variance, bald_values, normalize=False)
    assert close(plain, expected, 1e-8)
    scaled = pseudo_label_weights(name, probs, variance, bald_values)
    assert close(scaled, [2 * weight / sum(expected) for weight in expected], 1e-8)


def test_the_scale_of_log_variance_cancels_out():
    variance = torch.tensor([0.2, 0.01, 0.0], dtype=torch.float64)
    assert close(log_variance(variance, alpha=0.3), (3 * log_variance(variance)).tolist())
    scaled = normalize_to_mean_one(log_variance(variance, alpha=0.3))
    assert torch.allclose(scaled, normalize_to_mean_one(log_variance(variance)))
