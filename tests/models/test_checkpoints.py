"""Checkpoints: every architecture, full and LoRA, loaded by every supported library; the last complete one."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, BertForMaskedLM, BertModel, pipeline

import hfssl
from hfssl.models.adapters import add_adapter, build_lora_config
from hfssl.models.checkpoints import COMPLETE_MARKER, last_complete_checkpoint, plain_model, save_checkpoint
from hfssl.models.loading import load_classifier
from tests.helpers.encoders import ENCODERS, make_encoder, tiny_bert_config

TEXTS = ["the film was great fun", "dull plot ."]
MAKERS = {
    "minilm": lambda vocab: BertModel(tiny_bert_config(vocab)),  # an encoder with a pooler and without any head
    "bert": lambda vocab: BertForMaskedLM(tiny_bert_config(vocab)),  # a masked LM, whose checkpoint has no pooler
    **{name: partial(make_encoder, name) for name in ENCODERS},
}


@pytest.fixture(scope="module")
def backbones(tmp_path_factory, tiny_tokenizer):
    folder = tmp_path_factory.mktemp("backbones")
    for name, make in MAKERS.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            make(len(tiny_tokenizer)).save_pretrained(folder / name)
        tiny_tokenizer.save_pretrained(folder / name)
    return folder


def taught(backbone, names: list[str], lora: bool):
    """A classifier in which nothing that is trained is as it began."""
    model = load_classifier(backbone, names, seed=0)
    if lora:
        model = add_adapter(model, build_lora_config(model), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("labels", [2, 3, 77])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("architecture", MAKERS)
def test_who_loads_it_gets_the_same_logits_and_names(backbones, tiny_tokenizer, tmp_path, architecture, lora, labels):
    names = [f"class {chr(97 + i % 26)}{i}" for i in range(labels)]
    model = taught(backbones / architecture, names, lora)
    batch = tiny_tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)

    def logits(loaded) -> torch.Tensor:
        with torch.inference_mode():
            return loaded.eval()(**batch).logits

    expected = logits(model)
    assert expected.shape == (2, labels)
    save_checkpoint(model, tiny_tokenizer, tmp_path / "saved", names)
    ours = hfssl.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits(ours), expected, rtol=0, atol=1e-5)
    assert list(ours.config.id2label.values()) == names
    if lora:
        base = AutoModelForSequenceClassification.from_pretrained(backbones / architecture, num_labels=labels)
        plain_peft = PeftModel.from_pretrained(base, tmp_path / "saved")
        torch.testing.assert_close(logits(plain_peft), expected, rtol=0, atol=1e-5)
    save_checkpoint(plain_model(model), tiny_tokenizer, tmp_path / "merged")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=1e-5)
    assert list(merged.config.id2label.values()) == names
    classify = pipeline("text-classification", model=str(tmp_path / "merged"), top_k=None, function_to_apply="softmax")
    for row, answers in enumerate(classify(TEXTS)):
        scores = {answer["label"]: answer["score"] for answer in answers}
        found = torch.tensor([scores[name] for name in names])
        torch.testing.assert_close(found, expected[row].softmax(-1), rtol=0, atol=1e-5)


def test_a_checkpoint_replaces_the_whole_folder_and_a_plain_model_is_itself(tiny_backbone, tiny_tokenizer, tmp_path):
    model = load_classifier(tiny_backbone, ["bad", "good"], seed=0)
    assert plain_model(model) is model
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "adapter_config.json").write_text("{}")  # of another model: would be loaded as an adapter
    save_checkpoint(model, tiny_tokenizer, tmp_path / "saved")
    assert type(hfssl.from_pretrained(tmp_path / "saved")) is type(model)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_the_last_complete_checkpoint_is_the_one_of_the_highest_step(tmp_path):
    assert last_complete_checkpoint(tmp_path / "nowhere") is None
    for step in (9, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_complete_checkpoint(tmp_path) is None
    for step in (9, 10):  # 100 is what a kill left
        (tmp_path / f"checkpoint-{step}" / COMPLETE_MARKER).touch()
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
