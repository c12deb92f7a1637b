"""Logistic regression: scikit-learn's results, for hard labels and soft ones, with an offset, on uneven features."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from hfssl.functional.logistic_regression import logistic_weights, soft_logistic_weights, softmax_regression


def test_logistic_weights_are_those_of_scikit_learn_and_free_of_scale():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    features = torch.randn(8, 5, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 5)
    weight, bias = logistic_weights(features, labels, 4)
    scaled, shifted = logistic_weights(1000 * features + 7, labels, 4)
    torch.testing.assert_close(
        (1000 * features + 7) @ scaled.T + shifted, features @ weight.T + bias, atol=1e-2, rtol=0
    )
    center = features.mean(dim=0)
    unit = (features - center) / (features - center).square().sum(dim=1).mean().sqrt()
    peer = LogisticRegression(C=10.0, max_iter=1000).fit(unit.numpy(), labels.numpy())
    ours = (features @ weight.T + bias).softmax(-1)
    np.testing.assert_allclose(ours[:, :3].numpy(), peer.predict_proba(unit.numpy()), atol=1e-3)
    assert (ours[:, 3] < 1e-6).all()  # a class without labels


def test_without_a_bias_the_weights_are_those_of_scikit_learn_without_an_intercept():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(12) % 3
    features = 3 + torch.randn(12, 5, generator=generator).double()
    weight, bias = logistic_weights(features, labels, 4, with_bias=False)
    assert not bias.any()
    scale = (features - features.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    peer = LogisticRegression(C=10.0, fit_intercept=False, max_iter=5000, tol=1e-8)
    peer.fit((features / scale).numpy(), labels.numpy())
    ours = (features @ weight.T).softmax(-1)
    np.testing.assert_allclose(ours[:, :3].numpy(), peer.predict_proba((features / scale).numpy()), atol=1e-3)
    assert (ours[:, 3] < 1e-6).all()  # a class without labels


def test_logistic_weights_of_two_classes():
    features, labels = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    weight, bias = logistic_weights(features, labels, 2)
    torch.testing.assert_close(weight[0], -weight[1])
    peer = LogisticRegression(C=10.0).fit(features.numpy() / 2.5**0.5, labels.numpy())  # mean square 2.5
    ours = (features @ weight.T + bias).softmax(-1).numpy()
    np.testing.assert_allclose(ours, peer.predict_proba(features.numpy() / 2.5**0.5), atol=1e-3)


def test_soft_logistic_weights_are_scikit_learns_with_each_row_once_a_class():
    generator = np.random.default_rng(0)
    features, weights = generator.normal(2, 3, (30, 4)), generator.uniform(0, 2, 30)
    targets = generator.dirichlet(np.ones(3), 30)
    weight, bias = soft_logistic_weights(features, targets, weights)
    center = features.mean(axis=0)
    unit = (features - center) / np.sqrt(np.square(features - center).sum(axis=1).mean())
    peer = LogisticRegression(C=10.0, max_iter=1000, tol=1e-8)
    peer.fit(np.repeat(unit, 3, axis=0), np.tile([0, 1, 2], 30), sample_weight=(weights[:, None] * targets).ravel())
    np.testing.assert_allclose(softmax(features @ weight.T + bias, axis=1), peer.predict_proba(unit), atol=1e-3)


def test_soft_logistic_weights_of_hard_labels_are_logistic_weights():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(12) % 3
    features = torch.randn(12, 5, generator=generator).double()
    hard = logistic_weights(features, labels, 3)
    soft = soft_logistic_weights(features.numpy(), np.eye(3)[labels], np.ones(12))
    ours, theirs = (
        softmax(features.numpy() @ np.asarray(weight).T + np.asarray(bias), axis=1) for weight, bias in (soft, hard)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_equal_rows_are_no_trouble():
    weight, bias = soft_logistic_weights(np.ones((6, 3)), np.tile([0.25, 0.75], (6, 1)), np.ones(6))
    np.testing.assert_allclose(softmax(np.ones((1, 3)) @ weight.T + bias, axis=1), [[0.25, 0.75]], atol=1e-3)


def test_an_offset_and_the_pull_on_the_bias_by_hand():
    # Without features the logits are bias and offset. At the minimum sum_i (p_i - q_i) + pull * bias = 0: the offset
    # ln 3 for the second class of two rows, targets half and half, is met by biases of +-ln 3 / 2.
    nothing, offset = np.zeros((2, 1)), np.tile([0.0, np.log(3.0)], (2, 1))
    targets = np.full((2, 2), 0.5)
    _, bias = softmax_regression(nothing, targets, np.ones(2), penalty=1.0, bias_penalty=1e-9, offset=offset)
    np.testing.assert_allclose(bias, [np.log(3.0) / 2, -np.log(3.0) / 2], atol=1e-4)
    _, bias = softmax_regression(nothing, targets, np.ones(2), penalty=1.0, bias_penalty=2.0, offset=offset)
    second = 1 / (1 + np.exp(-(np.log(3.0) + bias[1] - bias[0])))
    np.testing.assert_allclose(2 * (second - 0.5) + 2.0 * bias[1], 0.0, atol=1e-4)
    np.testing.assert_allclose(bias[0], -bias[1], atol=1e-5)


def test_the_slope_is_nothing_where_the_search_ends_however_unevenly_features_are_spread():
    generator = np.random.default_rng(0)
    features = generator.normal(0.3, 1.0, (200, 20)) * np.logspace(0, -4, 20)  # a condition of 10^8
    targets, weights = generator.dirichlet(np.ones(4), 200), generator.uniform(0, 2, 200)
    weight, bias = softmax_regression(features, targets, weights, penalty=1e-3)
    surplus = weights[:, None] * (softmax(features @ weight.T + bias, axis=1) - targets)  # [N, K]
    np.testing.assert_allclose(surplus.sum(axis=0), 0.0, atol=1e-4)
    slope = surplus.T @ (features - features.mean(axis=0)) + 1e-3 * weight
    np.testing.assert_allclose(slope, 0.0, atol=1e-4)


def test_class_weights_are_rows_given_more_than_once():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(7, 3, generator=generator).double(), torch.tensor([0, 1, 2, 0, 1, 0, 0])
    weighted = logistic_weights(features, labels, 3, class_weights=torch.tensor([1.0, 2.0, 1.0]))
    penalty = 10.0 / (features - features.mean(0)).square().sum(1).mean()  # that of the rows as they are
    twice = torch.cat([features, features[labels == 1]]), torch.cat([labels, labels[labels == 1]])
    peer = LogisticRegression(C=penalty.item(), max_iter=5000, tol=1e-8).fit(*(part.numpy() for part in twice))
    ours = softmax((features @ weighted[0].T + weighted[1]).numpy(), axis=1)
    np.testing.assert_allclose(ours, peer.predict_proba(features.numpy()), atol=1e-3)
