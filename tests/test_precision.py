"""bf16 is taken where there are instructions for it, and trains what fp32 trains."""

from __future__ import annotations

import pytest
import torch

from hfssl.configs import SupervisedConfig
from hfssl.precision import has_bf16, precision_arguments


def machine(monkeypatch, *, accelerator: str | None = None, bf16: bool, **capabilities: bool) -> None:
    """Pretends to be on a machine."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(accelerator))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": False, "avx2": True}, False),
        ({}, False),
    ],
)
def test_a_cpu_takes_bf16_if_it_has_instructions_for_it(monkeypatch, capabilities, expected):
    machine(monkeypatch, bf16=False, **capabilities)
    assert has_bf16() is expected
    assert precision_arguments("auto") == ({"bf16": True, "use_cpu": True} if expected else {})
    assert precision_arguments("fp32") == {}
    assert precision_arguments("bf16") == {"bf16": True, "use_cpu": True}


@pytest.mark.parametrize(
    ("kind", "bf16", "expected"), [("cuda", True, True), ("cuda", False, False), ("mps", True, False)]
)
def test_a_gpu_is_asked_and_what_was_not_measured_stays_as_it_is(monkeypatch, kind, bf16, expected):
    machine(monkeypatch, accelerator=kind, bf16=bf16, avx512_bf16=True)
    assert precision_arguments("auto") == ({"bf16": True} if expected else {})


def test_transformers_takes_the_arguments(tmp_path):
    args = SupervisedConfig(output_dir=str(tmp_path), **precision_arguments("bf16"))
    assert args.bf16
