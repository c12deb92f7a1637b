"""Saved models by their folder: the right class, rejected folders, and code in a repository."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification, pipeline

from hfssl.errors import ModelError
from hfssl.models.auto import from_pretrained
from hfssl.models.backbones import check_backbone
from hfssl.models.loading import load_classifier
from tests.helpers.encoders import logits

NAMES = ["plot", "fresh", "rotten"]


def test_a_saved_stock_model_needs_plain_transformers_only(tiny_backbone, tiny_tokenizer, tmp_path, batch):
    model = load_classifier(tiny_backbone, NAMES, seed=0)
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(plain) is BertForSequenceClassification
    assert torch.equal(logits(plain, batch), logits(model, batch))
    assert pipeline("text-classification", str(tmp_path))("great fun")[0]["label"] in NAMES
    assert torch.equal(logits(from_pretrained(tmp_path), batch), logits(model, batch))


def test_a_backbone_is_no_trained_classifier(tiny_backbone):
    with pytest.raises(ModelError, match="not a backbone"):
        from_pretrained(tiny_backbone)


@pytest.fixture
def model_with_code(tiny_backbone, tiny_tokenizer, tmp_path, monkeypatch):
    """A folder whose model brings code that leaves a mark when it is run; returns folder and mark."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, mark = tmp_path / "model", tmp_path / "was_run"
    load_classifier(tiny_backbone, ["a", "b"], seed=0).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    (folder / "strange.py").write_text(
        "from pathlib import Path\n"
        "from transformers import BertConfig, BertForSequenceClassification\n"
        f"Path({str(mark)!r}).touch()\n"
        "class StrangeConfig(BertConfig):\n    model_type = 'strange'\n"
        "class StrangeModel(BertForSequenceClassification):\n    config_class = StrangeConfig\n"
    )
    return folder, mark


@pytest.mark.parametrize("kind", ["strange", "bert"])
def test_code_that_comes_with_a_model_is_run_only_if_the_user_says_so(model_with_code, kind):
    folder, mark = model_with_code
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "strange.StrangeConfig", "AutoModelForSequenceClassification": "strange.StrangeModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": kind, "auto_map": auto_map}))
    if kind == "bert":  # transformers knows what to do without that code
        assert from_pretrained(folder).config.label2id == {"a": 0, "b": 1}
    else:
        for load in (from_pretrained, check_backbone):
            with pytest.raises(ModelError, match="has its own code, which was not run"):
                load(folder)
    assert not mark.exists()
    model = from_pretrained(folder, trust_remote_code=True)
    assert type(model).__name__ == "StrangeModel"
    assert mark.exists()
