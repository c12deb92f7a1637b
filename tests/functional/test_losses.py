"""Loss terms against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hfssl.functional.losses import (
    pair_similarity_loss,
    same_class,
    soft_cross_entropy,
    supervised_contrastive_loss,
)


def test_supervised_contrastive_loss_by_hand():
    # Rows 0 and 1 are one class and point the same way, row 2 is alone and at right angles. At T = 1 rows 0 and 1 each
    # have log(e^1 / (e^1 + e^0)) for their positive; row 2 has none and does not count.
    features = torch.tensor([[2.0, 0.0], [5.0, 0.0], [0.0, 1.0]])
    loss = supervised_contrastive_loss(features, same_class(torch.tensor([0, 0, 1])), temperature=1.0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)
    # Row 2 joins the class: rows 0 and 1 have positives at cosine 1 and 0, row 2 has two at cosine 0 among two.
    loss = supervised_contrastive_loss(features, same_class(torch.tensor([0, 0, 0])), temperature=0.5)
    each = -(0.5 * (2 - math.log(math.exp(2) + 1)) + 0.5 * (0 - math.log(math.exp(2) + 1)))
    assert loss.item() == pytest.approx((2 * each + math.log(2)) / 3, abs=1e-6)


def test_without_positives_the_loss_is_zero_and_so_is_its_gradient():
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = supervised_contrastive_loss(features, same_class(torch.tensor([0, 1, 2])), temperature=0.1)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(features.grad, torch.zeros(3, 4))


def test_pair_loss_by_hand():
    # Rows 0 and 1 are one class at a cosine of 0.6; row 2 is another, at 1 to row 0 and at 0.6 to row 1.
    features = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.5, 0.0]])
    loss = pair_similarity_loss(features, same_class(torch.tensor([0, 0, 1])))
    assert loss.item() == pytest.approx((0.4**2 + (1**2 + 0.6**2) / 2) / 2)
    # Pairs of one kind alone are all there is; a row has no pair with itself.
    alike = pair_similarity_loss(features, same_class(torch.tensor([0, 0, 0])))
    assert alike.item() == pytest.approx((0.4**2 + 0**2 + 0.4**2) / 3)
    different = pair_similarity_loss(features, same_class(torch.tensor([0, 1, 2])))
    assert different.item() == pytest.approx((0.6**2 + 1**2 + 0.6**2) / 3)


def test_a_row_without_a_pair_has_no_pair_loss_and_no_gradient():
    features = torch.randn(1, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = pair_similarity_loss(features, same_class(torch.tensor([2])))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(features.grad, torch.zeros(1, 4))


def test_soft_cross_entropy_by_hand():
    logits = torch.tensor([[0.8, 0.2], [0.8, 0.2]]).log().requires_grad_()
    targets = torch.tensor([[1.0, 0.0], [0.25, 0.75]], requires_grad=True)
    loss = soft_cross_entropy(logits, targets)
    assert loss.tolist() == pytest.approx([-math.log(0.8), -0.25 * math.log(0.8) - 0.75 * math.log(0.2)])
    loss.sum().backward()
    assert torch.allclose(logits.grad, torch.tensor([[-0.2, 0.2], [0.55, -0.55]]))  # softmax(logits) - target
    assert targets.grad is None


def test_pairs_of_one_class():
    alike = same_class(torch.tensor([2, 0, 2]))
    assert alike.tolist() == [[True, False, True], [False, True, False], [True, False, True]]


def test_pair_loss_towards_target_cosines_by_hand():
    # One pair at a cosine of 0.6, which should be 0.5: the same error counts half for each kind.
    features = torch.tensor([[2.0, 0.0], [3.0, 4.0]])
    loss = pair_similarity_loss(features, torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    assert loss.item() == pytest.approx(0.1**2)


def test_positives_count_by_their_weights():
    # Rows 0 and 1 point the same way, row 2 stands at right angles; T = 1 and L = log(e + 1). Row 0 has the positives
    # 1 (weight 1, log-probability 1 - L) and 2 (weight 1/2, -L): ((L - 1) + L / 2) / 1.5 = L - 2/3; so has row 1.
    # Row 2 has two positives of equal weight at log-probability -log 2.
    features = torch.tensor([[2.0, 0.0], [5.0, 0.0], [0.0, 1.0]])
    weights = torch.tensor([[1.0, 1.0, 0.5], [1.0, 1.0, 0.5], [0.5, 0.5, 1.0]])
    loss = supervised_contrastive_loss(features, weights, temperature=1.0)
    assert loss.item() == pytest.approx((2 * (math.log(math.e + 1) - 2 / 3) + math.log(2)) / 3, abs=1e-6)
