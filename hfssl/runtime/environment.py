"""Collects the facts for a bug report: versions, machine, threads, devices and number formats."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from hfssl import __version__

__all__ = ["PACKAGES", "VARIABLES", "describe", "environment", "in_markdown"]

# Required packages first, then those of the extras.
PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "peft",
    "huggingface_hub",
    "safetensors",
    "tokenizers",
    "evaluate",
    "numpy",
    "scipy",
    "scikit-learn",
    "pyarrow",
    "pandas",
    "gradio",
    "onnx",
    "onnxruntime",
    "trackio",
    "tensorboard",
    "wandb",
)
# Variables that change speed, numbers or downloads. None of them holds a secret.
VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "TOKENIZERS_PARALLELISM",
    "WORLD_SIZE",
)


def environment() -> dict[str, str]:
    """Returns the name and value of each fact about this installation and machine, in the order to print them.

    Imports torch, which takes some seconds. Reads nothing that identifies a user: no paths, tokens or host names.

    Returns:
        `dict[str, str]`: for example `{"hfssl": "0.1.0", "Python": "3.11.7", ..., "bf16": "no"}`; the value of an
        optional package that is missing is `"not installed"`.

    Example:
        >>> "torch" in environment()
        True
    """
    facts = {"hfssl": __version__, "Python": platform.python_version(), "Platform": platform.platform()}
    facts |= {package: _version(package) for package in PACKAGES}
    facts |= _processor()
    facts |= _devices()
    facts |= {name: os.environ.get(name, "not set") or "empty" for name in VARIABLES}
    return facts


def describe() -> str:
    """Returns `environment()` as a Markdown list, ready to be pasted into an issue."""
    return in_markdown(environment())


def in_markdown(facts: Mapping[str, str]) -> str:
    """Returns facts as a Markdown list.

    Args:
        facts (`Mapping[str, str]`): Result of `environment`.
    """
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> dict[str, str]:
    """Returns processor, usable cores, memory and threads of this process."""
    import torch

    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    threads, operations = torch.get_num_threads(), torch.get_num_interop_threads()
    return {
        "Processor": _processor_name(),
        "Cores": f"{usable} usable of {os.cpu_count()}",
        "Memory": _memory(),
        "Threads": f"{threads} in an operation, {operations} operations at a time",
        "CPU instructions": torch.backends.cpu.get_cpu_capability(),
    }


def _processor_name() -> str:
    """Returns the model of the processor, as far as the system reports it."""
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> str:
    """Returns the physical memory in GiB, where the system reports it."""
    if sys.platform == "win32":
        return "unknown"
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"


def _devices() -> dict[str, str]:
    """Returns accelerators, and whether matrix products are computed in bf16 (see `hfssl.runtime.precision`)."""
    import torch

    from hfssl.runtime.precision import has_bf16

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return {
        "Accelerator": "none" if accelerator is None else ", ".join(names) or accelerator.type,
        "CUDA": torch.version.cuda or "not built in",
        "bf16": "yes, --precision auto takes it" if has_bf16() else "no, --precision auto takes fp32",
    }
