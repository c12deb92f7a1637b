"""Uncertainties against numbers worked out by hand."""

from __future__ import annotations

import math

import torch

from hfssl.functional.uncertainty import bald, entropy, predicted_class_variance, predictive_variance, variation_ratio

LOG2 = math.log(2)

# Two passes over three rows: sure of opposite classes; agreeing and unsure; agreeing and fairly sure.
TWO_PASSES = torch.tensor(
    [[[1.0, 0.0], [0.5, 0.5], [0.8, 0.2]], [[0.0, 1.0], [0.5, 0.5], [0.6, 0.4]]], dtype=torch.float64
)


def close(actual: torch.Tensor, expected: list, tolerance: float = 1e-12) -> bool:
    return torch.allclose(actual.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=tolerance)


def test_entropy_in_nats():
    probs = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64)
    assert close(entropy(probs), [0.693147180559945, 0.0, 1.098612288668110])
    assert entropy(probs.reshape(1, 3, 1, 3)).shape == (1, 3, 1)


def test_bald_by_hand():
    # Row 0: H(.5,.5) - 0 = log 2. Row 1: log 2 - log 2 = 0.
    # Row 2: H(.7,.3) = .610864302; H(.8,.2) = .500402424; H(.6,.4) = .673011667; .610864302 - .586707045 = .024157257.
    assert close(bald(TWO_PASSES), [LOG2, 0.0, 0.024157257], 1e-9)


def test_variance_by_hand():
    # Row 0: values 1 and 0, mean .5, variance .25; row 2: .8 and .6 around .7 gives .01 (a sample variance gives .02).
    assert close(predictive_variance(TWO_PASSES), [[0.25, 0.25], [0.0, 0.0], [0.01, 0.01]])


def test_predicted_class_variance_takes_the_predicted_class_and_not_class_zero():
    probs = torch.tensor([[[0.1, 0.3, 0.6]], [[0.1, 0.5, 0.4]]], dtype=torch.float64)
    assert close(predicted_class_variance(probs, torch.tensor([0])), [0.0])
    assert close(predicted_class_variance(probs, torch.tensor([2])), [0.01])


def test_variation_ratio_by_hand():
    votes = torch.tensor([0, 0, 2, 1, 0])  # three of five votes for class 0
    probs = torch.nn.functional.one_hot(votes, 3).double().unsqueeze(1)
    assert close(variation_ratio(probs), [0.4])


def test_one_pass_has_no_disagreement():
    probs = torch.softmax(torch.randn(1, 50, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert torch.equal(bald(probs), torch.zeros(50))
    assert torch.equal(predictive_variance(probs), torch.zeros(50, 4))
    assert torch.equal(variation_ratio(probs), torch.zeros(50))


def test_bald_is_between_zero_and_log_k():
    logits = 5 * torch.randn(7, 200, 3, generator=torch.Generator().manual_seed(1))
    values = bald(torch.softmax(logits, dim=-1))
    assert values.min() >= 0
    assert 0.1 < values.max() <= math.log(3)
