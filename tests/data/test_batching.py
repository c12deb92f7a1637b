"""Batches of a token budget, padding, and columns that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from hfssl.data.batching import token_windows
from hfssl.errors import DataError
from hfssl.inference.scoring import token_budget_batches
from tests.helpers.token_rows import make_dataset


@pytest.fixture(scope="module")
def dataset(tiny_tokenizer) -> Dataset:
    return make_dataset(tiny_tokenizer)


def test_batches_keep_to_the_token_budget_and_hold_each_row_once():
    lengths = np.random.default_rng(0).integers(1, 100, size=500)
    batches = token_budget_batches(lengths, 400)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(len(rows) * lengths[rows].max() <= 400 for rows in batches)
    assert len(batches) < 1.2 * lengths.sum() / 400 + 1
    assert [rows.tolist() for rows in token_budget_batches(np.array([3, 900]), 400)] == [[1], [0]]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("mask", [True, False])
def test_padding_equals_the_tokenizers_own(dataset, tiny_tokenizer_dir, side, mask):
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir, padding_side=side)
    if not mask:
        dataset = dataset.remove_columns("attention_mask")
    rows = np.array([31, 28, 44, 30])
    windows = list(token_windows(dataset, tokenizer, rows=20))
    assert [(window.start, window.stop) for window in windows] == [(0, 20), (20, 40), (40, 50)]
    for window in windows:
        inside = rows[(window.start <= rows) & (rows < window.stop)]
        if not len(inside):
            continue
        columns = [name for name in tokenizer.model_input_names if name in dataset.column_names]
        expected = tokenizer.pad(dataset.select_columns(columns)[inside], return_tensors="pt")
        padded = window.padded(inside)
        assert padded.keys() == expected.keys()
        assert all(torch.equal(padded[name], expected[name]) for name in padded)


def test_columns_of_unequal_length_are_refused(tiny_tokenizer):
    dataset = Dataset.from_dict({"input_ids": [[2, 3], [2, 3, 4]], "attention_mask": [[1, 1], [1, 1]]})
    with pytest.raises(DataError, match="'attention_mask' to be as long as 'input_ids'"):
        list(token_windows(dataset, tiny_tokenizer))
