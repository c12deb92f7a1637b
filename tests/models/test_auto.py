"""Saved models by their folder: the right class, rejected folders, and code in a repository."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    BertForTokenClassification,
    pipeline,
)

from hfssl.config.tasks import TASK_KEY
from hfssl.errors import ModelError
from hfssl.models.adapters import add_adapter, build_lora_config
from hfssl.models.auto import from_pretrained
from hfssl.models.backbones import check_backbone
from hfssl.models.checkpoints import save_checkpoint
from hfssl.models.loading import load_classifier
from tests.helpers.encoders import logits, tiny_bert_config

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


def test_the_adapter_of_a_model_is_in_a_subfolder(tiny_backbone, tiny_tokenizer, tmp_path, batch):
    model = load_classifier(tiny_backbone, NAMES, seed=0)
    adapted = add_adapter(model, build_lora_config(model), seed=0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.1 if parameter.requires_grad else 0.0)
    save_checkpoint(adapted, tiny_tokenizer, tmp_path / "adapter", NAMES)
    loaded = from_pretrained(tmp_path, subfolder="adapter")
    assert isinstance(loaded, PeftModel)
    assert loaded.config.id2label == dict(enumerate(NAMES))
    torch.testing.assert_close(logits(loaded, batch), logits(adapted, batch))
    with pytest.raises(ModelError, match=r"no config\.json"):
        from_pretrained(tmp_path)


def test_the_base_of_an_adapter_may_have_moved(copy_of_backbone, tiny_tokenizer, tmp_path, batch):
    model = load_classifier(copy_of_backbone, NAMES, seed=0)
    adapted = add_adapter(model, build_lora_config(model), seed=0)
    expected = logits(adapted, batch)
    save_checkpoint(adapted, tiny_tokenizer, tmp_path / "adapter", NAMES)
    moved = copy_of_backbone.rename(tmp_path / "moved")
    with pytest.raises(ModelError):
        from_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(logits(from_pretrained(tmp_path / "adapter", base=moved), batch), expected)


def test_the_class_follows_the_task_of_the_configuration(tiny_tokenizer, tmp_path):
    def saved(cls, **more):
        cls(tiny_bert_config(len(tiny_tokenizer), num_labels=3, **more)).save_pretrained(tmp_path)
        return tmp_path

    with torch.random.fork_rng():
        tagger = saved(BertForTokenClassification, **{TASK_KEY: "tags"})
        assert type(from_pretrained(tagger)) is BertForTokenClassification
        tagger = saved(BertForTokenClassification)  # without a task: one label per text, whose pooler it lacks
        with pytest.raises(ModelError, match=r"2 of its weights are missing.*pooler"):
            from_pretrained(tagger)
        classifier = saved(BertForSequenceClassification, **{TASK_KEY: "several_labels"})
        assert type(from_pretrained(classifier)) is BertForSequenceClassification
