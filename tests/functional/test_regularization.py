"""Regularisers against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hfssl.functional.regularization import draw_mixup, mixup_loss, r_drop_loss, symmetric_divergence


def logits_of(*probs: float) -> torch.Tensor:
    return torch.tensor([probs]).log()


def test_r_drop_of_two_views_of_one_row():
    first, second, label = logits_of(0.5, 0.5), logits_of(0.8, 0.2), torch.tensor([0])
    likelihood = (math.log(1 / 0.5) + math.log(1 / 0.8)) / 2
    forth = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    back = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert r_drop_loss(first, second, label, 0.0).item() == pytest.approx(likelihood)
    assert r_drop_loss(first, second, label, 3.0).item() == pytest.approx(likelihood + 3 * (forth + back) / 4)
    assert r_drop_loss(second, second, label, 3.0).item() == pytest.approx(math.log(1 / 0.8))


def test_mixup_is_the_mean_of_two_cross_entropies():
    logits = torch.cat([logits_of(0.9, 0.1), logits_of(0.4, 0.6)])
    labels, partners = torch.tensor([0, 1]), torch.tensor([1, 0])
    own = (math.log(1 / 0.9) + math.log(1 / 0.6)) / 2
    other = (math.log(1 / 0.1) + math.log(1 / 0.4)) / 2
    loss = mixup_loss(logits, labels, partners, 0.7)
    assert loss.item() == pytest.approx(0.7 * own + 0.3 * other)


def test_the_draw_of_mixup_depends_on_seed_and_step_alone():
    shares = [draw_mixup(6, 0.4, seed=1, step=step)[0] for step in range(200)]
    assert 0.5 <= min(shares) < 0.6
    assert max(shares) > 0.99  # Beta(0.4, 0.4) has most of its mass near 0 and 1
    share, partners = draw_mixup(6, 0.4, seed=1, step=3)
    assert sorted(partners.tolist()) == list(range(6))
    again, same = draw_mixup(6, 0.4, seed=1, step=3)
    assert (again, same.tolist()) == (share, partners.tolist())
    assert draw_mixup(6, 0.4, seed=2, step=3)[0] != share


def test_the_divergence_is_the_mean_over_rows_of_both_directions():
    first = torch.cat([logits_of(0.5, 0.5), logits_of(0.9, 0.1)])
    second = torch.cat([logits_of(0.8, 0.2), logits_of(0.9, 0.1)])
    forth = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    back = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert symmetric_divergence(first, second).item() == pytest.approx((forth + back) / 2)
    assert symmetric_divergence(second, first).item() == pytest.approx((forth + back) / 2)


def test_r_drop_and_mixup_take_the_loss_of_another_task():
    first, second, labels = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [7.0]]), torch.tensor([5, 0])

    def loss(logits, labels):
        return (logits[:, 0] - labels).abs().mean()

    # Losses (4 + 2) / 2 = 3 and (2 + 7) / 2 = 4.5; divergence (2 + 5) = 7: (3 + 4.5) / 2 + 2 * 7 / 4.
    value = r_drop_loss(first, second, labels, 2.0, loss=loss, divergence=lambda a, b: (b - a).sum())
    assert value.item() == pytest.approx(3.75 + 3.5)
    # With the partner's label: (|1 - 0| + |2 - 5|) / 2 = 2.
    value = mixup_loss(first, labels, torch.tensor([1, 0]), 0.75, loss=loss)
    assert value.item() == pytest.approx(0.75 * 3 + 0.25 * 2)
