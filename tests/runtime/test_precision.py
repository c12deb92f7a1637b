"""bf16 is used where it is faster, and trains what fp32 trains."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification

import hfssl.runtime.precision
import hfssl.training.forward
from hfssl.data.tokenization import tokenize_dataset
from hfssl.inference.scoring import predict_logits
from hfssl.methods.supervised import SupervisedConfig, SupervisedTrainer
from hfssl.models.loading import load_classifier
from hfssl.runtime.precision import has_bf16, precision_arguments
from hfssl.training.forward import BF16_PASS, FP32_PASS, length_groups


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
        ({"amx_bf16": True, "avx512_bf16": True, "avx512_fp16": True}, True),
        ({"amx_bf16": False, "avx512_bf16": True, "avx512_fp16": True}, False),  # tiles hidden: half the rate of fp32
        ({"avx512_bf16": False, "avx2": True}, False),
        ({}, False),
    ],
)
def test_a_cpu_takes_bf16_if_it_has_fast_instructions_for_it(monkeypatch, capabilities, expected):
    machine(monkeypatch, bf16=False, **capabilities)
    assert has_bf16() is expected
    assert precision_arguments("auto") == ({"bf16": True, "use_cpu": True} if expected else {})
    assert precision_arguments("fp32") == {}
    warnings = []
    monkeypatch.setattr(hfssl.runtime.precision.logger, "warning_once", warnings.append, raising=False)
    assert precision_arguments("bf16") == {"bf16": True, "use_cpu": True}
    assert len(warnings) == (0 if expected else 1)  # asked for, so it is done, but not in silence


@pytest.mark.parametrize(
    ("kind", "bf16", "expected"), [("cuda", True, True), ("cuda", False, False), ("mps", True, False)]
)
def test_a_gpu_is_asked_and_what_was_not_measured_stays_as_it_is(monkeypatch, kind, bf16, expected):
    machine(monkeypatch, accelerator=kind, bf16=bf16, avx512_bf16=True)
    assert precision_arguments("auto") == ({"bf16": True} if expected else {})


@pytest.mark.parametrize(("precision", "expected"), [("fp32", FP32_PASS), ("bf16", BF16_PASS)])
def test_a_step_in_bf16_is_cut_into_fewer_passes(
    tmp_path, monkeypatch, tiny_backbone, tiny_tokenizer, precision, expected
):
    seen = []

    def watched(lengths, *, overhead):
        seen.append(overhead)
        return length_groups(lengths, overhead=overhead)

    monkeypatch.setattr(hfssl.training.forward, "length_groups", watched)
    rows = Dataset.from_dict({"text": ["good film", "bad film"], "label": [0, 1]})
    arguments = {"max_steps": 2, "disable_tqdm": True, "report_to": "none"}
    args = SupervisedConfig(output_dir=str(tmp_path), **arguments, **precision_arguments(precision))
    model = load_classifier(tiny_backbone, ["a", "b"], seed=0)
    trainer = SupervisedTrainer(model, args, train_dataset=rows, processing_class=tiny_tokenizer)
    trainer.train()
    assert seen == [expected, expected]


def test_what_was_trained_in_bf16_answers_in_fp32_as_when_loaded(tmp_path, tiny_backbone, tiny_tokenizer):
    rows = Dataset.from_dict({"text": ["good film", "bad film"] * 4, "label": [0, 1] * 4})
    arguments = {"max_steps": 2, "disable_tqdm": True, "report_to": "none"}
    seen = {}
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        args = SupervisedConfig(output_dir=str(folder), **arguments, **precision_arguments(precision))
        model = load_classifier(tiny_backbone, ["a", "b"], seed=0)
        trainer = SupervisedTrainer(model, args, train_dataset=rows, processing_class=tiny_tokenizer)
        trainer.train()
        tokens = tokenize_dataset(rows, tiny_tokenizer, 16)
        seen[precision] = predict_logits(trainer.model, tokens, tiny_tokenizer)
        trainer.model.save_pretrained(folder / "model")
        loaded = AutoModelForSequenceClassification.from_pretrained(folder / "model")
        assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
        np.testing.assert_array_equal(seen[precision], predict_logits(loaded, tokens, tiny_tokenizer))
    assert not np.array_equal(seen["fp32"], seen["bf16"])  # it did train otherwise
    np.testing.assert_allclose(seen["fp32"], seen["bf16"], atol=0.05)


MULTIPLY = """
import torch
from hfssl.methods.supervised import SupervisedConfig

SupervisedConfig(output_dir="{folder}", bf16={bf16}, use_cpu=True, report_to="none")
layer = torch.nn.Linear(64, 64)
with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
    for rows in (*range(2, 102), 101, 2):
        layer(torch.randn(rows, 64))
"""


@pytest.mark.skipif(not has_bf16(), reason="oneDNN has no kernels for bf16 on this machine")
@pytest.mark.parametrize(
    ("bf16", "asked", "first_is_compiled_again"), [(True, None, True), (True, "1024", False), (False, None, False)]
)
def test_kernels_of_shapes_that_are_gone_are_forgotten(tmp_path, bf16, asked, first_is_compiled_again):
    environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}
    environment |= {"ONEDNN_VERBOSE": "profile_create"}
    environment |= {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": asked} if asked else {}
    program = MULTIPLY.format(folder=tmp_path, bf16=bf16)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    compiled = {rows: done.stdout.count(f",{rows}x64:64x64,") for rows in (2, 101)}
    misses = [line for line in done.stdout.splitlines() if "create:cache_miss" in line]
    assert compiled == {2: 2, 101: 2}  # asked for twice each
    assert sum(",101x64:64x64," in line for line in misses) == 1  # the last one is still there
    assert sum(",2x64:64x64," in line for line in misses) == 1 + first_is_compiled_again
