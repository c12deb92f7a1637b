"""Tokenized rows: the columns that stay, and padding, which restores the columns that were left out."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from hfssl.data.tokenization import pad_tokens, row_columns, tokenize_dataset

TEXTS = ["the film was good", "a story", "the city of the zebra was bad"]


@pytest.fixture(params=["right", "left"])
def tokenizer(request, tiny_tokenizer_dir):
    return AutoTokenizer.from_pretrained(tiny_tokenizer_dir, padding_side=request.param)


def with_types_of_its_own(tokenizer, numbers: str):
    """The tokenizer with other segment numbers for single texts, as XLNet's ([A, A, 2]) has."""
    from tokenizers.processors import TemplateProcessing

    special = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")]
    template = " ".join(f"{part}:{number}" for part, number in zip(("[CLS]", "$A", "[SEP]"), numbers, strict=True))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=special)
    return tokenizer


@pytest.mark.parametrize("pairs", [False, True])
def test_what_is_kept_and_padding_give_what_the_tokenizer_gives(tokenizer, pairs):
    columns = {"text": TEXTS, "label": [0, 1, 0]} | ({"text_pair": TEXTS[::-1]} if pairs else {})
    rows = tokenize_dataset(Dataset.from_dict(columns), tokenizer, 8)
    assert set(rows.column_names) - set(columns) == {"input_ids", "labels"} | ({"token_type_ids"} if pairs else set())
    second = TEXTS[::-1] if pairs else None
    expected = tokenizer(TEXTS, second, truncation=True, max_length=8, padding=True, return_tensors="pt")
    batch = pad_tokens([dict(row) for row in rows], tokenizer)
    assert set(expected) - set(batch) == (set() if pairs else {"token_type_ids"})
    assert all(torch.equal(batch[name], expected[name]) for name in batch)
    if not pairs:
        assert not expected["token_type_ids"].any()


def test_segment_numbers_that_say_something_are_kept(tokenizer):
    assert row_columns(tokenizer, has_pairs=False) == ["input_ids"]
    tokenizer = with_types_of_its_own(tokenizer, "002")
    assert row_columns(tokenizer, has_pairs=False) == ["input_ids", "token_type_ids"]
    rows = tokenize_dataset(Dataset.from_dict({"text": TEXTS}), tokenizer, 8)
    assert all(row["token_type_ids"] == [0] * (len(row["input_ids"]) - 1) + [2] for row in rows)


def test_a_pool_without_rows_has_the_same_columns(tokenizer):
    none = tokenize_dataset(Dataset.from_dict({"text": []}), tokenizer, 8)
    assert none.column_names == tokenize_dataset(Dataset.from_dict({"text": TEXTS}), tokenizer, 8).column_names


def test_a_mask_of_the_rows_own_is_kept(tokenizer):
    rows = [{"input_ids": [2, 7, 3], "attention_mask": [1, 0, 1]}, {"input_ids": [2, 3], "attention_mask": [1, 1]}]
    padded = [1, 1, 0] if tokenizer.padding_side == "right" else [0, 1, 1]
    assert pad_tokens(rows, tokenizer)["attention_mask"].tolist() == [[1, 0, 1], padded]
