"""Tiny encoders of the architectures that the tests go through; not a test itself."""

from __future__ import annotations

from transformers import (
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ENCODERS = ("roberta", "deberta-v2", "modernbert", "distilbert")


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
    raise ValueError(f"No tiny encoder is called {name!r}.")
