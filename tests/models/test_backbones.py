"""Backbones and tokenizers, checked before any weight is read: what is rejected, in one sentence."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import BertTokenizerFast, GPT2Config, GPT2Model

from hfssl.errors import ModelError
from hfssl.models.backbones import check_backbone, load_tokenizer
from hfssl.models.loading import load_classifier, load_masked_lm

NAMES = ["plot", "fresh", "rotten"]


def test_folders_that_hold_no_usable_backbone(tmp_path, copy_of_backbone):
    with pytest.raises(ModelError, match="no such folder"):
        check_backbone(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        check_backbone(tmp_path / "empty")

    (copy_of_backbone / "model.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"Expected model\.safetensors .* no weights"):
        check_backbone(copy_of_backbone)
    (copy_of_backbone / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"only pytorch_model\.bin, which hfssl does not read"):
        check_backbone(copy_of_backbone)

    (copy_of_backbone / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelError, match="readable safetensors"):
        load_classifier(copy_of_backbone, NAMES, seed=0)
    (copy_of_backbone / "config.json").write_text("{not json")
    with pytest.raises(ModelError, match=r"config\.json"):
        check_backbone(copy_of_backbone)
    (copy_of_backbone / "config.json").write_text('{"model_type": "of-the-future"}')
    with pytest.raises(ModelError, match=r"config\.json"):
        check_backbone(copy_of_backbone)


def test_an_unknown_id_offline_is_one_clear_sentence():
    with pytest.raises(ModelError, match=r"neither in the local cache nor can it be reached") as caught:
        check_backbone("nobody/nothing")
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value)


def test_an_architecture_without_a_classification_head(copy_of_backbone):
    (copy_of_backbone / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ModelError, match="no sequence-classification head for the architecture 'vit'"):
        check_backbone(copy_of_backbone)


def test_an_architecture_without_a_masked_language_head(tmp_path):
    GPT2Model(GPT2Config(vocab_size=120, n_embd=32, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="masked-language head"):
        load_masked_lm(tmp_path, seed=0)


def test_a_tokenizer_without_vocabulary_or_padding_is_refused(tiny_backbone, tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nfilm\ngreat\n", encoding="utf-8")
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "good")
    assert load_tokenizer(tmp_path / "good")("great film")["input_ids"] == [2, 6, 5, 3]
    (tmp_path / "headless").mkdir()
    for file in ("config.json", "model.safetensors"):
        shutil.copy(tiny_backbone / file, tmp_path / "headless")
    with pytest.raises(ModelError, match="vocabulary is missing"):  # transformers would make up one of five tokens
        load_tokenizer(tmp_path / "headless")
    with pytest.raises(ModelError, match="no such folder"):
        load_tokenizer(tmp_path / "nowhere")
