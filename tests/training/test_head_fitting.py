"""The fit of the logit layer: to class means at the start, and with unchanged confidence at the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hfssl.data.tokenization import tokenize_dataset
from hfssl.models.backbones import load_tokenizer
from hfssl.models.heads import logit_layer
from hfssl.models.loading import load_classifier
from hfssl.training.head_fitting import class_mean_weights, confidence_scale, init_head
from tests.helpers.train_tiny import LABEL_NAMES, make_dataset


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


def test_the_head_of_a_real_model_knows_its_labels_without_a_step(tiny_backbone):
    model = load_classifier(tiny_backbone, LABEL_NAMES, seed=0)
    tokenizer = load_tokenizer(tiny_backbone)
    rows = tokenize_dataset(make_dataset(9, labels=True), tokenizer, 16)
    model.train()
    state = torch.random.get_rng_state()
    init_head("class_means", model, rows, tokenizer)
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


def test_the_scale_that_makes_logits_as_sure_as_others():
    # Both rows of the reference are 3 : 1, a probability of 0.75; ln 3 = 1.0986.
    reference = np.array([[1.0986123, 0.0], [0.0, 1.0986123]])
    assert confidence_scale(np.array([[2.0, 0.0], [0.0, 2.0]]), reference) == pytest.approx(0.5493061, rel=1e-6)
    assert confidence_scale(reference, reference) == pytest.approx(1.0)
    assert confidence_scale(np.zeros((2, 2)), reference) == 1.0  # nothing makes these surer
    assert confidence_scale(reference, np.array([[0.0, 0.0], [0.0, 0.0]])) == 1.0
