"""Selects the precision of matrix products (bf16 where that is faster, else fp32), and bounds its memory."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers.utils import logging

__all__ = ["device_problems", "has_bf16", "keep_few_kernels", "precision_arguments"]

logger = logging.get_logger(__name__)

# Enough for the products of one forward and backward pass, whose shapes repeat in each layer but not in the next step.
KERNELS = 64


def has_bf16() -> bool:
    """Returns whether bf16 products are faster than fp32 ones on the device that a `Trainer` uses.

    The result is true for NVIDIA GPUs from Ampere on, and for CPUs with fast bf16 instructions (AMD since Zen 4, Intel
    Cooper Lake and since Sapphire Rapids; see `benchmarks/NOTES.md` for times). Other CPUs emulate bf16, which is many
    times slower than fp32. The result depends on the instructions and not on a measurement, so that all ranks and
    resumed runs get the same one.
    """
    if not torch.accelerator.is_available():
        known = torch.cpu.get_capabilities()
        # Since Sapphire Rapids, recognised by avx512_fp16, Intel computes bf16 in matrix tiles. If a virtual machine
        # hides the tiles, the remaining vector instruction has half the rate of fp32.
        tiles, vectors = known.get("amx_bf16", False), known.get("avx512_bf16", False)
        return tiles or (vectors and not known.get("avx512_fp16", False))
    if torch.accelerator.current_accelerator().type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return False  # not measured


def precision_arguments(asked: str) -> dict[str, Any]:
    """Returns fields of `TrainingArguments` for `"auto"`, `"fp32"` or `"bf16"`; weights are always fp32."""
    if asked == "fp32" or (asked == "auto" and not has_bf16()):
        return {}
    if not has_bf16():
        logger.warning_once("This machine computes bf16 more slowly than fp32: --precision auto takes fp32.")
    # transformers refuses bf16 on a CPU unless `use_cpu` is set.
    return {"bf16": True} if torch.accelerator.is_available() else {"bf16": True, "use_cpu": True}


def device_problems(kind: str) -> list[str]:
    """Returns a sentence if this machine has no device of that kind.

    Args:
        kind (`str`): `"auto"`, `"cpu"`, or the type of an accelerator of torch, such as `"cuda"`.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    known = ["cpu"] if found is None else ["cpu", found.type]
    if kind == "auto" or kind in known:
        return []
    return [f"device: expected a device that torch finds here ({', '.join(known)}), got '{kind}'."]


def keep_few_kernels() -> None:
    """Limits oneDNN, which multiplies bf16 on CPUs, to 64 compiled kernels instead of 1,024, to save memory.

    oneDNN compiles one kernel per shape, and most passes have a new number of tokens, so that most kernels are never
    used again (`benchmarks/NOTES.md`). oneDNN reads the variable at its first product; a value that the user has set
    remains.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))
