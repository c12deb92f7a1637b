"""The logit layer: found in every architecture, started from class means, given mixed rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from train_tiny import LABEL_NAMES, make_dataset

from hfssl.backbones import load_tokenizer
from hfssl.data.streams import tokenize_dataset
from hfssl.heads import (
    class_mean_weights,
    confidence_scale,
    logistic_weights,
    logit_layer,
    mixed_head_input,
    soft_logistic_weights,
    start_head,
)
from hfssl.modeling import load_classifier


@pytest.fixture
def model(tiny_backbone):
    return load_classifier(tiny_backbone, LABEL_NAMES, seed=0)


def test_class_means_by_hand():
    # Means (1, 0) and (0, 3); the rows lie 1, 1 and 0 from theirs, so the mean square is 2/3.
    features = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 3.0]])
    weight, bias = class_mean_weights(features, torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(weight, torch.tensor([[2.0, 0.0], [0.0, 6.0]]) * 1.5)
    torch.testing.assert_close(bias, torch.tensor([-1.0, -9.0]) * 1.5)


def test_the_logits_are_minus_the_squared_distances_up_to_a_constant():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 4, generator=generator)
    labels = torch.arange(12) % 3
    weight, bias = class_mean_weights(features, labels, 3)
    means = torch.stack([features[labels == k].mean(0) for k in range(3)])
    distances = (features[:, None] - means[None]).square().sum(-1)
    scale = distances[torch.arange(12), labels].mean()
    expected = (-distances / scale).log_softmax(-1)
    torch.testing.assert_close((features @ weight.T + bias).log_softmax(-1), expected)


def test_a_class_without_rows_gets_the_mean_of_all():
    features = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    weight, _ = class_mean_weights(features, torch.tensor([0, 1]), 3)
    assert weight[2, 0] == weight[2, 1] > 0


def test_the_head_of_a_real_model_knows_its_labels_without_a_step(model, tiny_backbone):
    tokenizer = load_tokenizer(tiny_backbone)
    rows = tokenize_dataset(make_dataset(9, labels=True), tokenizer, 16)
    model.train()
    state = torch.random.get_rng_state()
    start_head("class_means", model, rows, tokenizer)
    assert model.training  # and no number was drawn
    assert torch.equal(torch.random.get_rng_state(), state)
    model.eval()
    captured = []
    handle = logit_layer(model).register_forward_pre_hook(lambda module, inputs: captured.append(inputs[0]))
    batch = tokenizer.pad({"input_ids": rows["input_ids"][:]}, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    handle.remove()
    labels = torch.tensor(rows["labels"][:])
    means = torch.stack([captured[0][labels == k].mean(0) for k in range(3)])
    nearest = (captured[0][:, None] - means[None]).square().sum(-1).argmin(-1)
    assert logits.argmax(-1).tolist() == nearest.tolist()


def test_the_head_sees_mixed_rows_within_the_block_only(model, tiny_backbone):
    tokenizer = load_tokenizer(tiny_backbone)
    batch = tokenizer(["the film", "bad story"], return_tensors="pt")
    with torch.no_grad():
        plain = model(**batch).logits
        with mixed_head_input(model, torch.tensor([1, 0]), 0.75):
            mixed = model(**batch).logits
        torch.testing.assert_close(mixed, 0.75 * plain + 0.25 * plain.flip(0))  # a linear layer mixes its output alike
        assert torch.equal(model(**batch).logits, plain)


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


def test_the_scale_that_makes_logits_as_sure_as_others():
    # Both rows of the reference are 3 : 1, a probability of 0.75; ln 3 = 1.0986.
    reference = np.array([[1.0986123, 0.0], [0.0, 1.0986123]])
    assert confidence_scale(np.array([[2.0, 0.0], [0.0, 2.0]]), reference) == pytest.approx(0.5493061, rel=1e-6)
    assert confidence_scale(reference, reference) == pytest.approx(1.0)
    assert confidence_scale(np.zeros((2, 2)), reference) == 1.0  # nothing makes these surer
    assert confidence_scale(reference, np.array([[0.0, 0.0], [0.0, 0.0]])) == 1.0


def test_equal_rows_are_no_trouble():
    weight, bias = soft_logistic_weights(np.ones((6, 3)), np.tile([0.25, 0.75], (6, 1)), np.ones(6))
    np.testing.assert_allclose(softmax(np.ones((1, 3)) @ weight.T + bias, axis=1), [[0.25, 0.75]], atol=1e-3)
