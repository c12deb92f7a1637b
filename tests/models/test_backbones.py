"""Backbones and tokenizers, checked before any weight is read: what is rejected, in one sentence."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
from transformers import AutoTokenizer, BertTokenizerFast, GPT2Config, GPT2Model

from hfssl.errors import ModelError
from hfssl.models.backbones import (
    check_backbone,
    check_exists,
    check_files,
    check_masked_lm,
    first_line,
    load_tokenizer,
    refuse_remote_code,
)
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


def test_checks_read_no_weights_and_return_the_configuration(copy_of_backbone):
    (copy_of_backbone / "model.safetensors").write_bytes(b"cut short")
    assert check_backbone(copy_of_backbone).hidden_size == 32
    assert check_masked_lm(copy_of_backbone).model_type == "bert"


def test_the_backbone_of_the_pretext_stage_needs_a_masked_language_head(tmp_path):
    GPT2Model(GPT2Config(vocab_size=120, n_embd=32, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    assert check_backbone(tmp_path).model_type == "gpt2"
    with pytest.raises(ModelError, match=r"none for the architecture 'gpt2' .*--no-pretext"):
        check_masked_lm(tmp_path)


def test_folders_of_an_adapter_or_of_a_run_are_told_apart(copy_of_backbone, tmp_path):
    (tmp_path / "run").mkdir()
    inside = copy_of_backbone.rename(tmp_path / "run" / "model")
    with pytest.raises(ModelError, match=r"no config\.json: give '.*run/model'"):
        check_files(tmp_path / "run")
    check_files(inside)
    (inside / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"holds an adapter: load it with hfssl\.models\.auto\.from_pretrained"):
        check_files(inside)


def test_weights_in_several_files_are_weights(copy_of_backbone):
    (copy_of_backbone / "model.safetensors").rename(copy_of_backbone / "model-1.safetensors")
    index = {"weight_map": {"embeddings.word_embeddings.weight": "model-1.safetensors"}}
    (copy_of_backbone / "model.safetensors.index.json").write_text(json.dumps(index))
    check_files(copy_of_backbone)


@pytest.mark.parametrize(
    ("name", "is_path"), [("name", False), ("owner/name", False), ("a/b/c", True), ("./name", True), ("~/name", True)]
)
def test_a_path_without_a_folder_is_not_looked_for_on_the_hub(name, is_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no such folder") if is_path else nullcontext():
        check_exists(name)
    Path("name").touch()
    with pytest.raises(ModelError, match="Expected 'name' to be a model's folder"):
        check_exists("name")


def test_the_length_of_texts_is_saved_and_never_above_the_backbones(tiny_backbone, tmp_path):
    limit = check_backbone(tiny_backbone).max_position_embeddings
    assert load_tokenizer(tiny_backbone, max_length=limit + 1).model_max_length == limit
    tokenizer = load_tokenizer(tiny_backbone, max_length=7)
    assert len(tokenizer("the film was great fun " * 5, truncation=True)["input_ids"]) == 7
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).model_max_length == 7


def test_a_tokenizer_that_cannot_pad_is_refused(tiny_tokenizer_dir, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has no padding token"):
        load_tokenizer(tmp_path)


def test_only_the_refusal_to_run_code_is_translated():
    refuse_remote_code("owner/name", ValueError("something else"))
    with pytest.raises(ModelError, match="'owner/name' has its own code, which was not run"):
        refuse_remote_code("owner/name", ValueError("set the option `trust_remote_code=True`"))


def test_the_first_line_of_an_error():
    assert first_line(OSError("\n  cannot read it \nbecause of this")) == "cannot read it "
