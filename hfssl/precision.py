"""Which precision matrix products are computed in: bf16 where the hardware has instructions for it, else fp32."""

from __future__ import annotations

from typing import Any

import torch
from transformers.utils import logging

__all__ = ["has_bf16", "precision_arguments"]

logger = logging.get_logger(__name__)

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def has_bf16() -> bool:
    """Whether bf16 products are faster than fp32 ones on the device that a `Trainer` would take.

    True for NVIDIA GPUs from Ampere on, and for CPUs that have instructions for it (AMD since Zen 4, Intel since
    Cooper Lake; `benchmarks/NOTES.md` has what that saves). Others emulate bf16, many times slower than fp32.
    """
    if not torch.accelerator.is_available():
        known = torch.cpu.get_capabilities()
        return any(known.get(name, False) for name in BF16_INSTRUCTIONS)
    if torch.accelerator.current_accelerator().type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return False  # not measured


def precision_arguments(asked: str) -> dict[str, Any]:
    """Fields of `TrainingArguments` for `"auto"`, `"fp32"` or `"bf16"`; weights and updates are fp32 in any case."""
    if asked == "fp32" or (asked == "auto" and not has_bf16()):
        return {}
    if not has_bf16():
        logger.warning_once("This machine has no instructions for bf16 and will be slow: --precision auto takes fp32.")
    # transformers refuses bf16 on a CPU unless it is told that the CPU is meant.
    return {"bf16": True} if torch.accelerator.is_available() else {"bf16": True, "use_cpu": True}
