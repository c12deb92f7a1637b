"""Replaces slow CPU operations: sampling of dropout masks, and casts between fp32 and bf16.

Torch samples dropout masks one number at a time, which is a large part of a training step with long texts. And under
autocast to bf16, layer norms return fp32, which each of the four following products casts again. See
benchmarks/NOTES.md (2026-11-28, sixth part) for times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["cheap_operations"]

LEVELS = 2**16  # resolution of the dropout probability: multiples of 1 / LEVELS


def cheap_operations(model: nn.Module) -> AbstractContextManager:
    """Returns a context in which a model on a CPU applies dropout faster, also in attention, and casts less in bf16.

    A mask uses 16 random bits per value of the 64 that torch's generator returns at a time; `bernoulli_` uses all 64,
    and a division, per value. The distribution is the same: each value remains independently with probability 1 - p
    (to 2^-16) and is divided by 1 - p (Srivastava et al. 2014, "Dropout"; section 10 for the scale). The numbers come
    from torch's global generator, so that restoring its state restores the masks.

    Under autocast to bf16, layer norms still compute in fp32, and round their result to bf16, as the following
    products would. So the residual stream is also in bf16, as in a model with bf16 weights, and embeddings differ
    slightly more from those in fp32. Without autocast nothing is rounded.

    Nothing changes on other devices, which sample in parallel. Nothing changes for models with gradient checkpointing,
    either: their backward pass recomputes activations with torch's own operations.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    checkpointed = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    return _CheapOperations() if on_cpu and not checkpointed else nullcontext()


class _CheapOperations(TorchFunctionMode):
    """Replaces some functions of `torch.nn.functional`, and passes all other calls on."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        answer = OWN.get(func)
        result = None if answer is None else answer(*args, **kwargs)
        return func(*args, **kwargs) if result is None else result


def _layer_norm(
    input: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor | None:
    """Computes `layer_norm` of torch in bf16 under autocast to bf16; returns `None` where it does not apply.

    The CPU kernel accepts bf16 inputs with fp32 weights, and computes in fp32.
    """
    in_fp32 = all(values is None or values.dtype == torch.float32 for values in (weight, bias))
    if input.device.type != "cpu" or input.dtype not in (torch.float32, torch.bfloat16) or not in_fp32:
        return None
    if not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return None
    return F.layer_norm(input.bfloat16(), normalized_shape, weight, bias, eps)


def _dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor | None:
    """Computes `torch.nn.functional.dropout`; returns `None` where the replacement does not apply."""
    return None if inplace or not training or not _is_ours(input, p) else _Dropped.apply(input, p)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor | None:
    """Computes `scaled_dot_product_attention` of torch; returns `None` where the replacement does not apply.

    On a CPU torch, too, materialises the probabilities where there is dropout (in fp32, even under autocast to bf16).
    """
    if is_causal or enable_gqa or not _is_ours(query, dropout_p):
        return None
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * scale) @ key.transpose(-2, -1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    elif attn_mask is not None:
        scores = scores + attn_mask
    probs = torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
    return _Dropped.apply(probs, dropout_p) @ value


OWN: dict[Callable, Callable] = {
    F.dropout: _dropout,
    F.layer_norm: _layer_norm,
    F.scaled_dot_product_attention: _attention,
}


def _is_ours(values: torch.Tensor, p: float) -> bool:
    return values.device.type == "cpu" and values.is_floating_point() and 0 < round(p * LEVELS) < LEVELS


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, p: float) -> torch.Tensor:
        kept = _bits(values.shape) >= round(p * LEVELS) - LEVELS // 2
        kept = kept.view(torch.uint8)  # products with uint8 are faster than with bool
        ctx.save_for_backward(kept)
        ctx.scale = 1 / (1 - p)
        return values.mul(kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (kept,) = ctx.saved_tensors
        return grad.mul(kept).mul_(ctx.scale), None


def _bits(shape: torch.Size) -> torch.Tensor:
    """Samples random 16-bit integers, from -2^15 to 2^15 - 1."""
    count = math.prod(shape)
    words = torch.empty(math.ceil(count / 4), dtype=torch.int64)
    words.random_(-(2**63), None)  # all 64 bits
    return words.view(torch.int16)[:count].view(shape)
