"""Tokenizes datasets and pads their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from transformers import BatchEncoding, PreTrainedTokenizerBase

from hfssl.runtime.progress import library_bars

__all__ = [
    "encode_texts",
    "map_in_memory",
    "pad_tokens",
    "row_columns",
    "tokenize_dataset",
]

Row = dict[str, Any]


def pad_tokens(rows: list[Row], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """Pads the tokenizer's columns of `rows` to `[B, L]` tensors, on the tokenizer's padding side.

    The result equals that of `tokenizer.pad`, computed faster; rows without an attention mask get one.
    """
    fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    length = max(len(row["input_ids"]) for row in rows)
    left = tokenizer.padding_side == "left"
    batch = {}
    for name in tokenizer.model_input_names:
        if name not in rows[0] and name != "attention_mask":
            continue
        padded = np.full((len(rows), length), fill.get(name, 0), dtype=np.int64)
        for i, row in enumerate(rows):
            own = len(row["input_ids"])
            padded[i, length - own if left else 0 : length if left else own] = row.get(name, 1)
        batch[name] = torch.from_numpy(padded)
    return batch


def is_numeric(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, int | float)


def row_columns(tokenizer: PreTrainedTokenizerBase, has_pairs: bool) -> list[str]:
    """Returns `input_ids` and the tokenizer's columns that do not follow from it in an unpadded row.

    A mask of ones follows from it, and so do segment numbers that are all 0, the default of models. XLNet's single
    texts have other segment numbers.
    """
    names = [name for name in tokenizer.model_input_names if name != "attention_mask"]
    if not has_pairs and "token_type_ids" in names and not any(tokenizer("a")["token_type_ids"]):
        names.remove("token_type_ids")
    return names


def encode_texts(batch: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, max_length: int) -> BatchEncoding:
    """Tokenizes `text` (with `text_pair`, where there is one), without padding.

    Texts are cut at `max_length` tokens, or at the tokenizer's own limit if that is less, since a longer row would
    exceed the model's positions.
    """
    longest = min(max_length, tokenizer.model_max_length)
    return tokenizer(batch["text"], batch.get("text_pair"), truncation=True, max_length=longest)


def tokenize_dataset(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Adds the tokenizer's columns to a dataset with `text` (and optionally `text_pair`).

    Texts are cut as by `encode_texts`. A column `label` becomes `labels`. All other columns stay unchanged. A dataset
    that already has `input_ids` is returned unchanged. Columns of the tokenizer that are redundant (`row_columns`) are
    left out, to save memory for every token of a pool.

    Args:
        dataset (`Dataset`): Rows of text.
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer.
        max_length (`int`): Largest number of tokens of a row.

    Example:
        >>> import hfssl
        >>> sorted(hfssl.tokenize_dataset(dataset, tokenizer, 16).column_names)
        ['input_ids', 'labels', 'text']
    """
    if "input_ids" in dataset.column_names:
        return dataset
    told = row_columns(tokenizer, has_pairs="text_pair" in dataset.column_names)

    def encode(batch: Mapping[str, Any]) -> dict[str, list]:
        encoded = encode_texts(batch, tokenizer, max_length)
        return {name: encoded[name] for name in told}

    if len(dataset) == 0:  # `map` would add no column
        features = Features({**dataset.features, **dict.fromkeys(told, List(Value("int64")))})
        tokenized = Dataset.from_dict({name: [] for name in features}, features=features)
    else:
        tokenized = map_in_memory(dataset, encode, "tokenizing")
    return tokenized.rename_column("label", "labels") if "label" in tokenized.column_names else tokenized


def map_in_memory(dataset: Dataset, encode: Callable[[Mapping[str, Any]], dict], what: str, **options: Any) -> Dataset:
    """Runs `dataset.map` over batches, with a titled progress bar and without any cache.

    A cache keyed by a hash of the tokenizer object could become stale silently. The hash would also take longer than
    the tokenization of a few hundred rows, so the result gets a random fingerprint.
    """
    with library_bars(len(dataset)):
        return dataset.map(
            encode,
            batched=True,
            keep_in_memory=True,
            load_from_cache_file=False,
            new_fingerprint=uuid4().hex,
            desc=what,
            **options,
        )
