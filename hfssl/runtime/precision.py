"""Which precision matrix products are computed in (bf16 where that is faster, else fp32), in how much memory."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers.utils import logging

__all__ = ["has_bf16", "keep_few_kernels", "precision_arguments"]

logger = logging.get_logger(__name__)

# Enough for the products of a pass and of its gradients, whose shapes return in each layer, but not in the next step.
KERNELS = 64


def has_bf16() -> bool:
    """Whether bf16 products are faster than fp32 ones on the device that a `Trainer` would take.

    True for NVIDIA GPUs from Ampere on, and for CPUs whose instructions for it are the faster ones (AMD since Zen 4,
    Intel Cooper Lake and since Sapphire Rapids; `benchmarks/NOTES.md` has what that saves). Others emulate bf16, many
    times slower than fp32. The answer comes from the instructions and not from a stopwatch, so that ranks and resumed
    runs get the same one.
    """
    if not torch.accelerator.is_available():
        known = torch.cpu.get_capabilities()
        # Since Sapphire Rapids, told by avx512_fp16, Intel computes bf16 in matrix tiles. If a virtual machine hides
        # these, the vector instruction that is left has half the rate of fp32.
        tiles, vectors = known.get("amx_bf16", False), known.get("avx512_bf16", False)
        return tiles or (vectors and not known.get("avx512_fp16", False))
    if torch.accelerator.current_accelerator().type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return False  # not measured


def precision_arguments(asked: str) -> dict[str, Any]:
    """Fields of `TrainingArguments` for `"auto"`, `"fp32"` or `"bf16"`; weights and updates are fp32 in any case."""
    if asked == "fp32" or (asked == "auto" and not has_bf16()):
        return {}
    if not has_bf16():
        logger.warning_once("This machine computes bf16 more slowly than fp32: --precision auto takes fp32.")
    # transformers refuses bf16 on a CPU unless it is told that the CPU is meant.
    return {"bf16": True} if torch.accelerator.is_available() else {"bf16": True, "use_cpu": True}


def keep_few_kernels() -> None:
    """Keeps oneDNN, which multiplies bf16 on CPUs, from hoarding memory: 64 compiled kernels instead of 1,024.

    It compiles one for each shape, and every pass here has another number of tokens: kernels that are never used again
    make over a quarter of what `quick` needs in memory (`benchmarks/NOTES.md`). oneDNN reads the variable at its first
    product; who has set it keeps what it says.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))
