"""Tokenizers are fitted to their backbones before anything trains: padding, segments, vocabulary, positions."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartModel,
    GPT2Config,
    GPT2Model,
    MPNetConfig,
    Qwen2Config,
    Qwen2Model,
    RobertaConfig,
    XLNetConfig,
)

from hfssl.data.tokenization import tokenize_dataset
from hfssl.errors import ModelError
from hfssl.inference.scoring import head_inputs, predict_logits
from hfssl.models.adapters import add_adapter, build_lora_config, merge
from hfssl.models.backbones import check_backbone, check_files, load_tokenizer
from hfssl.models.heads import logit_layer
from hfssl.models.loading import load_classifier
from hfssl.models.tokenizer_checks import fit_tokenizer, is_decoder, pads_left, usable_positions
from hfssl.training.forward import joint_logits
from hfssl.training.head_fitting import class_mean_weights, init_head
from tests.helpers.encoders import SIZES, tiny_bert_config
from tests.helpers.train_tiny import LABEL_NAMES, make_dataset

DECODERS = {
    "gpt2": (GPT2Model, GPT2Config(vocab_size=200, n_embd=32, n_layer=2, n_head=2, n_positions=48)),
    "qwen2": (Qwen2Model, Qwen2Config(vocab_size=200, num_key_value_heads=2, pad_token_id=None, **SIZES)),
}


@pytest.fixture(params=DECODERS)
def decoder(request, tmp_path, tiny_tokenizer_dir):
    """A folder with a tiny decoder whose tokenizer pads on the left and, like GPT-2's, has no padding token."""
    kind, config = DECODERS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind(config).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir, padding_side="left")
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_decoders_score_rows_alike_alone_together_and_joined(decoder):
    tokenizer = load_tokenizer(decoder, max_length=32)
    assert tokenizer.pad_token is not None
    assert tokenizer.padding_side == "right"
    model = load_classifier(decoder, LABEL_NAMES, seed=0)
    assert is_decoder(model.config)
    rows = tokenize_dataset(make_dataset(6, labels=True), tokenizer, 32)
    together = predict_logits(model, rows, tokenizer)
    for number in range(6):
        alone = predict_logits(model, rows.select([number]), tokenizer)
        torch.testing.assert_close(torch.from_numpy(alone[0]), torch.from_numpy(together[number]))
    short, long = (
        tokenizer.pad({"input_ids": rows["input_ids"][a:b]}, return_tensors="pt") for a, b in [(0, 1), (1, 6)]
    )
    with torch.no_grad():
        joined = torch.cat(joint_logits(model, short, long))
    torch.testing.assert_close(joined, torch.from_numpy(together), rtol=1e-4, atol=1e-5)


def test_the_head_of_a_decoder_is_fitted_to_its_last_tokens_without_a_bias(decoder):
    tokenizer, model = load_tokenizer(decoder, max_length=32), load_classifier(decoder, LABEL_NAMES, seed=0)
    rows = tokenize_dataset(make_dataset(9, labels=True), tokenizer, 32)
    features = torch.from_numpy(head_inputs(model, rows, tokenizer))
    layer = logit_layer(model)
    assert layer.bias is None
    logits = torch.from_numpy(predict_logits(model, rows, tokenizer))
    torch.testing.assert_close(features @ layer.weight.detach().T, logits, rtol=1e-4, atol=1e-5)
    init_head("class_means", model, rows, tokenizer)
    weight, bias = class_mean_weights(features, torch.tensor(rows["labels"][:]), 3, with_bias=False)
    torch.testing.assert_close(layer.weight.detach(), weight)
    assert not bias.any()


def test_lora_reaches_the_layers_of_decoders(decoder):
    model = load_classifier(decoder, LABEL_NAMES, seed=0)
    ids = torch.arange(5, 13).view(2, 4)
    with torch.no_grad():
        before = model(input_ids=ids).logits
        adapter = add_adapter(model, build_lora_config(model, r=2), seed=0).eval()
        torch.testing.assert_close(adapter(input_ids=ids).logits, before)
        for name, parameter in adapter.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
        changed = adapter(input_ids=ids).logits
        assert (changed - before).abs().max() > 1e-4
        torch.testing.assert_close(merge(adapter)(input_ids=ids).logits, changed, rtol=1e-4, atol=1e-5)


def test_encoder_decoders_and_quantised_weights_are_refused(tmp_path, copy_of_backbone):
    config = BartConfig(
        vocab_size=120, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
    )  # fmt: skip
    BartModel(config).save_pretrained(tmp_path / "bart")
    with pytest.raises(ModelError, match="'bart'\\) is an encoder-decoder"):
        check_backbone(tmp_path / "bart")
    config = json.loads((copy_of_backbone / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (copy_of_backbone / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="are quantised"):
        check_backbone(copy_of_backbone)


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        (RobertaConfig(max_position_embeddings=514, pad_token_id=1, vocab_size=10, **SIZES), 512),
        (MPNetConfig(max_position_embeddings=514, vocab_size=10, **SIZES), 512),
        (tiny_bert_config(120), 64),
        (DECODERS["gpt2"][1], 48),
        (XLNetConfig(vocab_size=10, d_model=32, n_head=2, n_layer=1, d_inner=32), None),
    ],
)
def test_usable_positions(config, positions):
    assert usable_positions(config) == positions


def test_xlnet_reads_its_last_position_and_is_padded_on_the_left(tiny_tokenizer_dir):
    config = XLNetConfig(vocab_size=200, d_model=32, n_head=2, n_layer=1, d_inner=32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    fit_tokenizer(tokenizer, config, "xlnet")
    assert tokenizer.padding_side == "left"
    assert pads_left(config)
    assert not is_decoder(config)


@pytest.mark.parametrize(("segments", "kept"), [(2, True), (1, False)])
def test_segments_are_left_out_where_a_backbone_has_none(tiny_tokenizer_dir, segments, kept):
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    fit_tokenizer(tokenizer, tiny_bert_config(200, type_vocab_size=segments), "here")
    assert ("token_type_ids" in tokenizer("a", "b")) is kept


def test_tokens_without_an_embedding(tiny_tokenizer_dir):
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    size = len(tokenizer)
    with pytest.raises(ModelError, match=f"has {size - 3}, and the tokenizer has tokens up to number {size - 1}"):
        fit_tokenizer(tokenizer, tiny_bert_config(size - 3), "here")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra>"]})
    assert size in tokenizer("a <extra>")["input_ids"]
    fit_tokenizer(tokenizer, tiny_bert_config(size), "here")  # nobody needs it: a text that spells it is split
    assert max(tokenizer("a <extra>")["input_ids"]) < size


@pytest.mark.parametrize(
    "name", ["pytorch_model-1.bin", "../model.safetensors", "/tmp/model.safetensors", "a\\b.safetensors"]
)
def test_an_index_names_safetensors_in_its_own_folder(copy_of_backbone, name):
    (copy_of_backbone / "model.safetensors").rename(copy_of_backbone / "part.safetensors")
    index = copy_of_backbone / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part.safetensors"}}))
    check_files(copy_of_backbone)
    index.write_text(json.dumps({"weight_map": {"a": "part.safetensors", "b": name}}))
    with pytest.raises(ModelError, match="names safetensors|name safetensors files in its own folder"):
        check_files(copy_of_backbone)
    index.write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    with pytest.raises(ModelError, match=r"Expected 'gone\.safetensors'"):
        check_files(copy_of_backbone)
    index.write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        check_files(copy_of_backbone)
