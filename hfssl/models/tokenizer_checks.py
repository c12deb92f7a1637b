"""Fits a tokenizer to a backbone before anything trains: padding, segments, vocabulary, positions."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_MAPPING,
    AutoModel,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from hfssl.errors import ModelError
from hfssl.models.introspection import own_random_state

__all__ = ["fit_tokenizer", "is_decoder", "pads_left", "usable_positions"]

logger = logging.get_logger(__name__)

# Its head reads the last position, and its positions are relative: it must be padded on the left.
LEFT_PADDED = ("xlnet",)
# Architectures with segments and no number of them in the configuration.
RELATIVE_SEGMENTS = ("xlnet",)


def is_decoder(config: PreTrainedConfig) -> bool:
    """Returns whether the architecture is a causal decoder, whose head reads the last token that is not padding.

    Args:
        config (`PreTrainedConfig`): Configuration of the backbone, or of a classifier on it.
    """
    kind = type(config.get_text_config())
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING
    return causal and not pads_left(config)


def pads_left(config: PreTrainedConfig) -> bool:
    """Returns whether texts must be padded on the left for this architecture.

    Args:
        config (`PreTrainedConfig`): Configuration of the backbone, or of a classifier on it.
    """
    return config.get_text_config().model_type in LEFT_PADDED


def usable_positions(config: PreTrainedConfig) -> int | None:
    """Returns the largest number of tokens that the backbone reads; `None` without a limit.

    RoBERTa and its relatives count positions from the padding id + 1, so that 514 position vectors serve 512 tokens.

    Args:
        config (`PreTrainedConfig`): Configuration of the backbone, or of a classifier on it.
    """
    config = config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)  # GPT-2 has it under another name
    if not isinstance(limit, int) or limit < 1:
        return None
    if type(config) not in MODEL_MAPPING or getattr(config, "pad_token_id", None) is None:
        return limit
    with torch.device("meta"), own_random_state(0):  # no weights: only the shape of the layers
        body = AutoModel.from_config(config)
    for name, module in body.named_modules():
        offset = module.padding_idx if isinstance(module, nn.Embedding) else None
        if name.endswith("position_embeddings") and offset is not None:
            return min(limit, module.num_embeddings - offset - 1)
    return limit


def fit_tokenizer(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, path: str | Path) -> None:
    """Changes a tokenizer, in place, so that the backbone can read what it makes.

    * Without a padding token, the end of a text pads (GPT, Llama): its positions are masked.
    * Decoders are padded on the right, because a decoder with absolute positions would count padding on the left.
    * Segment numbers are left out where the backbone has none of them.
    * Texts that spell a special token without an embedding are split like other texts.
    * `model_max_length` is at most the number of positions that can be used.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer.
        config (`PreTrainedConfig`): Configuration of the backbone, or of a classifier on it.
        path (`str | Path`): Where the tokenizer is from, for messages.

    Raises:
        ModelError: if no token can pad, or a token has no embedding.
    """
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                f"Expected a tokenizer that can pad, but that of '{path}' has no padding token and no end-of-text "
                "token: set tokenizer.pad_token to a token of its vocabulary, and save it again."
            )
        tokenizer.pad_token = tokenizer.eos_token
        logger.info("The tokenizer of '%s' has no padding token: '%s' pads.", path, tokenizer.pad_token)
    side = "left" if pads_left(config) else "right"
    if tokenizer.padding_side != side and (is_decoder(config) or side == "left"):
        tokenizer.padding_side = side
        logger.info("Texts for '%s' are padded on the %s.", path, side)
    if "token_type_ids" in tokenizer.model_input_names and not _has_segments(config):
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    _check_vocabulary(tokenizer, config, path)
    limit = usable_positions(config)
    if limit is not None and limit < tokenizer.model_max_length:
        tokenizer.model_max_length = limit


def _has_segments(config: PreTrainedConfig) -> bool:
    config = config.get_text_config()
    if type(config) not in MODEL_MAPPING:
        return True  # code of the user's own
    if config.model_type in RELATIVE_SEGMENTS:
        return True
    body = MODEL_MAPPING[type(config)]
    body = body[0] if isinstance(body, tuple) else body
    takes = "token_type_ids" in inspect.signature(body.forward).parameters
    return takes and getattr(config, "type_vocab_size", 0) > 1


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, path: str | Path) -> None:
    """Refuses tokens without an embedding; of those beyond the vocabulary, special ones are made unreachable."""
    rows = config.get_text_config().vocab_size
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    if not beyond:
        return
    needed = {tokenizer.pad_token_id, *tokenizer("a")["input_ids"]}
    unreachable = set(beyond) <= set(tokenizer.all_special_tokens) and not needed & set(beyond.values())
    if unreachable:
        tokenizer.split_special_tokens = True
        return
    example = min(beyond, key=lambda token: beyond[token])
    raise ModelError(
        f"Expected an embedding for each token of '{path}', but its model has {rows:,}, and the tokenizer has tokens "
        f"up to number {max(beyond.values()):,}, for example '{example}': use the tokenizer that belongs to the "
        "model, or add the embeddings with model.resize_token_embeddings and save the model again."
    )
