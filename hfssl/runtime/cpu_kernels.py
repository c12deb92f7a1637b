"""What layers spend on CPUs beside products of matrices, for less: dropout's masks, and casts to bf16 and back.

Torch draws masks number by number: a quarter of a training step where texts are long. And under autocast to bf16 layer
norms hand on fp32, which each of the four products that follow casts anew: a tenth of a look at a pool.
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

LEVELS = 2**16  # a share of dropped values is rounded to so many


def cheap_operations(model: nn.Module) -> AbstractContextManager:
    """Within it a model on a CPU drops values, also attention's, at a third of torch's cost, and casts less in bf16.

    A mask needs 16 random bits a value, and torch's own generator gives 64 at a time; its `bernoulli_` spends as many,
    and a division, on each value. Nothing else changes: values are kept with probability 1 - p (to 2^-16),
    independently of one another, and divided by it (Srivastava et al. 2014, "Dropout"; section 10 for the scale), and
    the numbers come from torch's global generator, so that what restores its state restores the masks.

    Under autocast to bf16 layer norms compute in fp32, as ever, and round what they return to bf16, as the products
    that follow would. So the residual stream is in bf16, too, as in a model whose weights are: embeddings of
    MiniLM differ from those in fp32 by 0.7 % of their length instead of 0.5. Without autocast nothing is rounded.

    Other devices draw in parallel and are left alone. So are models whose activations are checkpointed: a backward
    pass that computes them again would find torch's own operations.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    checkpointed = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    return _CheapOperations() if on_cpu and not checkpointed else nullcontext()


class _CheapOperations(TorchFunctionMode):
    """Answers calls of some functions of `torch.nn.functional`, and hands all others on."""

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
    """As `torch.nn.functional.layer_norm`, in bf16 under autocast to it, or `None` where that has to answer itself.

    Its CPU kernel takes bf16 beside weights in fp32, and computes in fp32.
    """
    in_fp32 = all(values is None or values.dtype == torch.float32 for values in (weight, bias))
    if input.device.type != "cpu" or input.dtype not in (torch.float32, torch.bfloat16) or not in_fp32:
        return None
    if not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return None
    return F.layer_norm(input.bfloat16(), normalized_shape, weight, bias, eps)


def _dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor | None:
    """As `torch.nn.functional.dropout`, or `None` where that has to answer itself."""
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
    """As `torch.nn.functional.scaled_dot_product_attention`, or `None` where that has to answer itself.

    On a CPU that computes probabilities with dropout out in full, too (in fp32, even if products are to be in bf16).
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
        kept = kept.view(torch.uint8)  # products with numbers are three times as fast as with bool
        ctx.save_for_backward(kept)
        ctx.scale = 1 / (1 - p)
        return values.mul(kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (kept,) = ctx.saved_tensors
        return grad.mul(kept).mul_(ctx.scale), None


def _bits(shape: torch.Size) -> torch.Tensor:
    """Random 16-bit integers, from -2^15 to 2^15 - 1."""
    count = math.prod(shape)
    words = torch.empty(math.ceil(count / 4), dtype=torch.int64)
    words.random_(-(2**63), None)  # all 64 bits
    return words.view(torch.int16)[:count].view(shape)
