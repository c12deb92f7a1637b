"""Noise on word embeddings: its size, and that it depends on the row's seed alone."""

from __future__ import annotations

import pytest
import torch

from hfssl.models.loading import load_classifier
from hfssl.training.forward import joint_logits
from hfssl.training.perturbations import noisy_logits


@pytest.fixture(scope="module")
def model(tiny_backbone):
    return load_classifier(tiny_backbone, ["a", "b"], seed=0).eval()


def batch(rows, length, **noise):
    ids = torch.arange(5, 5 + rows * length).view(rows, length)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | {k: torch.tensor(v) for k, v in noise.items()}


def seen(model, inputs):
    """The embeddings `[B, L, D]` that the model computes with."""
    found = []
    handle = model.base_model.embeddings.LayerNorm.register_forward_pre_hook(lambda m, x: found.append(x[0].detach()))
    with torch.no_grad():
        noisy_logits(model, inputs)
    handle.remove()
    return found[0]


def test_gaussian_noise_has_its_size(model):
    plain = batch(2, 6)
    noisy = batch(2, 6, noise_seed=[11, 12], gaussian_noise=[0.5, 0.0])
    difference = seen(model, noisy) - seen(model, plain)
    words = model.get_input_embeddings()(plain["input_ids"])
    size = words.square().mean(-1).sqrt()
    ratio = difference[0].square().mean(-1).sqrt() / size[0]
    assert ratio.mean().item() == pytest.approx(0.5, rel=0.15)
    assert difference[0].mean().abs() < 0.1 * size[0].mean()
    assert difference[1].abs().max() < 1e-7  # a row without noise stays


def test_noise_depends_on_the_seed_of_the_row_and_not_on_its_batch(model):
    noise = {"noise_seed": [7, 8, 9], "gaussian_noise": [0.3] * 3}
    together = batch(3, 4, **noise)
    alone = {name: value[1:2] for name, value in together.items()}
    padded = {**alone, "input_ids": torch.nn.functional.pad(alone["input_ids"], (0, 3))}
    padded["attention_mask"] = torch.nn.functional.pad(alone["attention_mask"], (0, 3))
    with torch.no_grad():
        expected = noisy_logits(model, together)[1]
        torch.testing.assert_close(noisy_logits(model, alone)[0], expected)
        torch.testing.assert_close(noisy_logits(model, padded)[0], expected)
        other = noisy_logits(model, {**alone, "noise_seed": torch.tensor([99])})[0]
    assert (other - expected).abs().max() > 1e-5


def test_feature_cutoff_hides_the_same_dimensions_of_all_tokens(model):
    embeddings = []
    inputs = batch(1, 5, noise_seed=[3], feature_cutoff=[0.5])
    hook = model.get_input_embeddings().register_forward_hook(lambda m, i, o: embeddings.append(o))
    with torch.no_grad():
        noisy_logits(model, inputs)
    hook.remove()
    gone = seen(model, inputs) - seen(model, batch(1, 5)) + embeddings[0]
    hidden = gone[0].abs() < 1e-6
    assert (hidden == hidden[0]).all()
    assert 0.2 < hidden[0].float().mean() < 0.8


def test_rows_without_noise_share_a_pass_with_rows_that_have_some(model):
    plain, noisy = batch(2, 4), batch(2, 3, noise_seed=[1, 2], gaussian_noise=[0.4, 0.4])
    with torch.no_grad():
        first, second = joint_logits(model, plain, noisy)
        torch.testing.assert_close(first, noisy_logits(model, plain))
        torch.testing.assert_close(second, noisy_logits(model, noisy))
