"""Trunk reuse: the same logits without dropout, lower layers that run once, and full passes where reuse fails."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch import nn
from transformers import AlbertConfig, AlbertForSequenceClassification, BertForSequenceClassification

from hfssl.inference.scoring import mc_dropout
from hfssl.inference.trunk import find_trunk
from hfssl.models.adapters import add_adapter
from hfssl.models.introspection import encoder_layers
from tests.helpers.encoders import ATTENTION_ONLY, build, tiny_bert_config
from tests.helpers.texts import WORDS

LAYERS = 3


@pytest.fixture
def warnings(caplog):
    """What hfssl warns of; transformers' loggers do not propagate by themselves."""
    logger = logging.getLogger("hfssl")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture(scope="module")
def dataset(tiny_tokenizer) -> Dataset:
    generator = np.random.default_rng(1)
    texts = [" ".join(generator.choice(WORDS, size=length)) for length in generator.integers(1, 30, size=30)]
    return Dataset.from_dict(dict(tiny_tokenizer(texts)))


def make_model(vocabulary: int) -> BertForSequenceClassification:
    config = tiny_bert_config(vocabulary, num_labels=3, num_hidden_layers=LAYERS, initializer_range=0.3)
    return build(BertForSequenceClassification, config).eval()


def count_calls(layers) -> list[int]:
    calls = [0] * len(layers)
    for i, layer in enumerate(layers):

        def count(*_, i=i):
            calls[i] += 1

        layer.attention.register_forward_hook(count)
    return calls


@pytest.mark.parametrize("name", ATTENTION_ONLY)
def test_a_replay_gives_the_models_own_logits(name, warnings):
    model_class, config = ATTENTION_ONLY[name]
    model = build(model_class, config).eval()
    ids = torch.arange(5, 25).reshape(2, 10)
    batch = {"input_ids": ids, "attention_mask": (ids < 22).long()}
    assert find_trunk(model, batch, top_layers=1) is not None  # it compares the logits itself
    assert not warnings.records


def test_lower_layers_run_once_for_all_passes(tiny_tokenizer, dataset):
    model = make_model(len(tiny_tokenizer))
    plain = mc_dropout(model, dataset, tiny_tokenizer, passes=4, seed=0)
    calls = count_calls(encoder_layers(model))
    reused = mc_dropout(model, dataset, tiny_tokenizer, passes=4, seed=0, top_layers=1, max_tokens=64)
    trials = 2  # find_trunk: the plain pass and the recorded one, on the first batch; its replay runs the top only
    batches = calls[0] - trials
    assert calls[:2] == [batches + trials] * 2
    assert calls[2] > 2 * batches
    np.testing.assert_allclose(reused.deterministic_probs, plain.deterministic_probs, atol=1e-5)
    assert (reused.bald > 0).all()
    assert "forward" not in vars(encoder_layers(model)[0])


@pytest.mark.parametrize("lora", [False, True])
def test_where_only_the_top_drops_reusing_the_trunk_changes_nothing(tiny_tokenizer, dataset, lora):
    model = make_model(len(tiny_tokenizer))
    if lora:
        config = LoraConfig(target_modules=["query", "value"], lora_dropout=0.3, init_lora_weights=False)
        model = add_adapter(model, config, seed=0).eval()
    layers = encoder_layers(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout) and module not in set(layers[-1].modules()):
            module.p = 0.0
    for layer in layers[:-1]:
        layer.attention.self.dropout_prob = 0.0
        layer.attention.self.dropout.p = 0.0
    full = mc_dropout(model, dataset, tiny_tokenizer, passes=3, seed=5)
    reused = mc_dropout(model, dataset, tiny_tokenizer, passes=3, seed=5, top_layers=1)
    np.testing.assert_allclose(reused.mean_probs, full.mean_probs, atol=1e-5)
    np.testing.assert_allclose(reused.bald, full.bald, atol=1e-5)


def test_shared_layers_mean_full_passes_and_it_says_so(tiny_tokenizer, dataset, warnings):
    config = AlbertConfig(
        vocab_size=len(tiny_tokenizer), embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=64, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2, num_labels=3,
    )  # fmt: skip
    model = build(AlbertForSequenceClassification, config).eval()
    full = mc_dropout(model, dataset, tiny_tokenizer, passes=2, seed=0)
    reused = mc_dropout(model, dataset, tiny_tokenizer, passes=2, seed=0, top_layers=1)
    assert "no single stack of layers in AlbertForSequenceClassification" in warnings.text
    assert np.array_equal(full.mean_probs, reused.mean_probs)
