"""Heads on the mean over the tokens: by hand, saved and loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from transformers import AutoModel, pipeline

from hfssl.models.auto import from_pretrained
from hfssl.models.loading import load_classifier
from hfssl.models.mean_pooling import mean_over_tokens
from tests.helpers.encoders import logits

NAMES = ["plot", "fresh", "rotten"]


def test_mean_over_tokens_by_hand():
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [99.0, 99.0]]])
    assert mean_over_tokens(hidden, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 4.0]]


def test_mean_pooling_round_trip(tiny_backbone, tiny_tokenizer, tmp_path, batch):
    model = load_classifier(tiny_backbone, NAMES, seed=0, pooling="mean")
    with torch.inference_mode():
        hidden = model.encoder(**batch).last_hidden_state
        expected = model.classifier(mean_over_tokens(hidden, batch["attention_mask"]))
    assert torch.equal(logits(model, batch), expected)
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    loaded = from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, batch), expected)
    assert loaded.config.id2label == {0: "plot", 1: "fresh", 2: "rotten"}
    assert pipeline("text-classification", str(tmp_path))("great fun")[0]["label"] in NAMES
    with pytest.raises(ValueError, match="MeanPooledConfig"):
        AutoModel.from_pretrained(tmp_path)
    loss = loaded(**batch, labels=torch.tensor([2, 0])).loss
    assert torch.allclose(loss, torch.nn.functional.cross_entropy(expected, torch.tensor([2, 0])))


def test_transformers_without_hfssl_refuses_a_mean_pooled_model(tiny_backbone, tmp_path):
    load_classifier(tiny_backbone, NAMES, seed=0, pooling="mean").save_pretrained(tmp_path)
    code = f"from transformers import AutoConfig; AutoConfig.from_pretrained({str(tmp_path)!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "hfssl-mean-pooled" in run.stderr


def test_mean_pooling_takes_no_gradient_to_what_it_does_not_read(tiny_backbone, batch):
    model = load_classifier(tiny_backbone, NAMES, seed=0, pooling="mean")
    model(**batch, labels=torch.tensor([2, 0])).loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
