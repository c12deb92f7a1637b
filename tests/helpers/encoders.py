"""Tiny encoders of the tested architectures; not a test itself."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    ModernBertModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
)

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ENCODERS = ("roberta", "deberta-v2", "modernbert", "distilbert")


BACKBONES = ("bert", "distilbert", "roberta", "deberta-v2", "modernbert", "qwen3")
"""The architectures of the behaviour matrix; the last one is a decoder, padded on the left."""


def save_backbone(name: str, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes a tiny backbone with random weights and a tokenizer, such as `AutoModel` loads, into `folder`."""
    own = deepcopy(tokenizer)
    if name not in ("bert", "deberta-v2"):
        own.model_input_names = ["input_ids", "attention_mask"]
    if name == "qwen3":
        own.padding_side = "left"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make_encoder(name, len(tokenizer)).save_pretrained(folder)
    own.save_pretrained(folder)


def make_encoder(name: str, vocab_size: int = 120) -> PreTrainedModel:
    """An encoder of about 10,000 parameters, drawn from torch's global generator; its padding id is 0."""
    match name:
        case "roberta":
            return RobertaModel(RobertaConfig(vocab_size=vocab_size, pad_token_id=0, **SIZES))
        case "deberta-v2":
            return DebertaV2Model(DebertaV2Config(vocab_size=vocab_size, **SIZES))
        case "modernbert":
            return ModernBertModel(ModernBertConfig(vocab_size=vocab_size, pad_token_id=0, **SIZES))
        case "distilbert":
            config = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
            return DistilBertModel(DistilBertConfig(vocab_size=vocab_size, **config))
        case "bert":
            return BertModel(tiny_bert_config(vocab_size))
        case "qwen3":
            heads = {"num_key_value_heads": 2, "head_dim": 16}
            return Qwen3Model(Qwen3Config(vocab_size=vocab_size, pad_token_id=0, **heads, **SIZES))
    raise ValueError(f"No tiny encoder is called {name!r}.")


def tiny_bert_config(vocab_size: int, **overrides):
    """A two-layer BERT of about 20,000 parameters."""
    settings = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    return BertConfig(**(settings | overrides))


def build(model_class, config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model_class(config)


SMALL = {**SIZES, "num_labels": 3}
# Every dropout but the attention's is off, so that only the attention's own flag can make the passes differ.
ATTENTION_ONLY = {
    "bert": (
        BertForSequenceClassification,
        tiny_bert_config(120, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5, initializer_range=0.3),
    ),
    "roberta": (
        RobertaForSequenceClassification,
        RobertaConfig(vocab_size=120, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5, **SMALL),
    ),
    "distilbert": (
        DistilBertForSequenceClassification,
        DistilBertConfig(
            vocab_size=120, dim=32, n_layers=2, n_heads=2, hidden_dim=64, dropout=0.0, attention_dropout=0.5,
            seq_classif_dropout=0.0,
        ),
    ),
    "deberta": (
        DebertaV2ForSequenceClassification,
        DebertaV2Config(vocab_size=120, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5, **SMALL),
    ),
    "modernbert": (
        ModernBertForSequenceClassification,
        ModernBertConfig(vocab_size=120, attention_dropout=0.5, pad_token_id=0, **SMALL),
    ),
}  # fmt: skip


def logits(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The logits of `batch` without dropout."""
    with torch.inference_mode():
        return model.eval()(**batch).logits


def fixed_logits(model: PreTrainedModel) -> torch.Tensor:
    """The logits of two rows of four token ids."""
    return logits(model, {"input_ids": torch.arange(5, 13).view(2, 4)})
