"""Cheap masks and casts: torch's distribution, torch's results without dropout, and no other effect."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hfssl.runtime import cpu_kernels
from hfssl.runtime.cpu_kernels import cheap_operations

MODEL = nn.Linear(2, 2)  # on the CPU


@pytest.fixture
def keep_all(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "_bits", lambda shape: torch.full(shape, 2**15 - 1, dtype=torch.int16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_values_are_dropped_with_probability_p_and_the_others_scaled(p, dtype):
    torch.manual_seed(0)
    values = torch.ones(300, 1001, dtype=dtype, requires_grad=True)
    with cheap_operations(MODEL):
        dropped = F.dropout(values, p)
        dropped.sum().backward()
    assert dropped.dtype == dtype
    assert sorted(set(dropped.flatten().tolist())) == [0.0, torch.tensor(1 / (1 - p), dtype=dtype).item()]
    count = values.numel()
    assert abs((dropped == 0).sum().item() - p * count) < 4 * math.sqrt(count * p * (1 - p))
    assert torch.equal(values.grad, dropped.detach())  # d(sum)/d(value): what it was multiplied by


def test_values_are_dropped_independently_of_one_another():
    torch.manual_seed(0)
    with cheap_operations(MODEL):
        zero = F.dropout(torch.ones(400_000), 0.5) == 0
    for distance in (1, 2, 3, 4, 8):  # four values come from one number of the generator
        both = (zero[distance:] & zero[:-distance]).double().mean().item()
        assert abs(both - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 400_000)


def test_a_mask_needs_sixteen_random_bits_the_threshold_is_exact():
    """p = 0.1 is 6554 of 65,536 equally probable numbers."""
    kept = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    with pytest.MonkeyPatch.context() as patch, cheap_operations(MODEL):
        patch.setattr(cpu_kernels, "_bits", lambda shape: kept)
        assert (F.dropout(torch.ones(2**16), 0.1) == 0).sum() == 6554
    torch.manual_seed(0)
    drawn = cpu_kernels._bits(torch.Size((1000, 1003))).flatten().int()
    assert drawn.unique().numel() > 0.99 * 2**16  # of a million: all but 15 on average
    for bit in range(16):
        assert abs((drawn >> bit & 1).double().mean().item() - 0.5) < 2.5e-3  # five standard deviations


def test_masks_come_from_the_global_generator():
    def draw():
        with cheap_operations(MODEL):
            return F.dropout(torch.ones(1000), 0.3)

    torch.manual_seed(1)
    state, first, second = torch.get_rng_state(), draw(), draw()
    torch.set_rng_state(state)
    assert torch.equal(draw(), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("mask", [None, "bool", "float"])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_that_drops_nothing_is_torch_s(keep_all, mask, scale):
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 5, 4, requires_grad=True) for _ in range(3)]
    masks = {"bool": torch.rand(2, 1, 5, 5) < 0.8, "float": torch.randn(2, 1, 5, 5)}
    if mask == "bool":
        masks["bool"][..., 0] = True  # a token that nobody may look at has no attention to compare
    settings = {"attn_mask": masks.get(mask), "scale": scale}
    expected = F.scaled_dot_product_attention(*inputs, **settings)
    with cheap_operations(MODEL):
        found = 0.9 * F.scaled_dot_product_attention(*inputs, **settings, dropout_p=0.1)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_attention_s_probabilities_are_dropped():
    """Values of 1, so that each output is the sum of the probabilities that are left, times 1 / (1 - p)."""
    torch.manual_seed(0)
    query, key, value = torch.zeros(1, 1, 2000, 4), torch.zeros(1, 1, 10, 4), torch.ones(1, 1, 10, 1)
    with cheap_operations(MODEL):
        left = F.scaled_dot_product_attention(query, key, value, dropout_p=0.2)[..., 0] * 0.8 * 10
    counts = left.round()
    torch.testing.assert_close(left, counts)  # of ten equal probabilities
    assert abs(counts.mean().item() - 8) < 4 * math.sqrt(10 * 0.2 * 0.8 / 2000)
    assert counts.unique().numel() > 3


def test_what_is_not_ours_is_left_to_torch(monkeypatch):
    def refuse(shape):
        raise AssertionError("a mask was drawn")

    monkeypatch.setattr(cpu_kernels, "_bits", refuse)
    values, heads = torch.ones(4, 6), torch.randn(1, 2, 3, 4)
    with cheap_operations(MODEL):
        assert torch.equal(nn.Dropout(0.5).eval()(values), values)
        assert torch.equal(F.dropout(values, 0.0), values)
        F.dropout(values, 1 - 1e-6)  # closer to 1 than 16 bits can tell
        assert torch.equal(F.dropout(values, 1.0), torch.zeros_like(values))
        F.dropout(values.clone(), 0.5, inplace=True)
        F.scaled_dot_product_attention(heads, heads, heads, dropout_p=0.0)
        F.scaled_dot_product_attention(heads, heads, heads, dropout_p=0.5, is_causal=True)
        assert F.dropout(torch.ones(3, device="meta"), 0.5).device.type == "meta"
    checkpointed = nn.Linear(2, 2)
    checkpointed.gradient_checkpointing = True  # as transformers marks its layers
    for model in (nn.Linear(2, 2, device="meta"), nn.Sequential(checkpointed)):
        with cheap_operations(model):
            F.dropout(values, 0.5)


def test_layer_norms_round_what_they_return_under_autocast_to_bf16():
    torch.manual_seed(0)
    layer, values = nn.LayerNorm(64), torch.randn(7, 64, requires_grad=True)
    nn.init.normal_(layer.weight)
    exact = layer(values)
    with cheap_operations(layer), torch.autocast("cpu", torch.bfloat16):
        rounded = layer(values)
        assert layer(values.bfloat16()).dtype == torch.bfloat16
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=2**-7, atol=2**-7)  # half of the digits, twice
    ours, theirs = (
        torch.autograd.grad(found.float().pow(3).sum(), [values, layer.weight]) for found in (rounded, exact)
    )
    for mine, torchs in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - torchs).norm() < 0.01 * torchs.norm()


def test_layer_norms_are_torch_s_without_autocast_to_bf16():
    torch.manual_seed(0)
    layer, values = nn.LayerNorm(8), torch.randn(3, 8)
    exact = layer(values)
    with cheap_operations(layer):
        assert torch.equal(layer(values), exact)
        with torch.autocast("cpu", torch.float16):
            assert torch.equal(layer(values), exact)
        with torch.autocast("cpu", torch.bfloat16):
            assert F.layer_norm(values.double(), (8,)).dtype == torch.float64
            assert F.layer_norm(torch.ones(2, 8, device="meta"), (8,)).dtype == torch.float32
    with cheap_operations(nn.Linear(2, 2, device="meta")), torch.autocast("cpu", torch.bfloat16):
        assert nn.LayerNorm(8)(values).dtype == torch.float32
