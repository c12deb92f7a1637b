"""Makes padded batches of pools of any size: reads windows of rows from Arrow, sorts them and cuts them by tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hfssl.errors import DataError

__all__ = ["WINDOW_ROWS", "TokenWindow", "token_budget_batches", "token_windows"]

WINDOW_ROWS = 10_000  # large enough that sorting a window saves as much as sorting the pool, small enough for memory


def token_budget_batches(lengths: np.ndarray, max_tokens: int) -> list[np.ndarray]:
    """Sorts rows into batches of similar length, longest first, so that a lack of memory shows at once.

    Args:
        lengths (`np.ndarray`): `[N]` number of tokens of each row.
        max_tokens (`int`): Largest number of tokens in a batch, padding included; a longer row is a batch alone.

    Returns:
        Arrays of row numbers; each row is in exactly one of them.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        rows = max(1, max_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows])
        start += rows
    return batches


class TokenWindow:
    """Holds consecutive rows of a tokenized dataset: each column's tokens end to end in one array.

    Args:
        table (`pa.Table`): Columns of lists of integers, including `input_ids`; in each row all have the same length.
        start (`int`): Number of the first row in the dataset.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that defines the padding.

    Attributes:
        start, stop (`int`): Numbers of the first row and of the row after the last in the dataset.
        lengths (`np.ndarray`): `[n]` number of tokens of each row.
    """

    def __init__(self, table: pa.Table, start: int, tokenizer: PreTrainedTokenizerBase):
        self.start, self.stop = start, start + len(table)
        self.lengths = pc.list_value_length(table["input_ids"]).to_numpy().astype(np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._columns = {name: pc.list_flatten(table[name]).to_numpy() for name in table.column_names}
        for name, tokens in self._columns.items():
            if len(tokens) != len(self._columns["input_ids"]):
                raise DataError(
                    f"Expected '{name}' to be as long as 'input_ids' in every row, but rows {start} to {self.stop} "
                    f"hold {len(tokens)} against {len(self._columns['input_ids'])} numbers; tokenize the texts again."
                )
        self._fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        self._left = tokenizer.padding_side == "left"
        self._adds_mask = "attention_mask" in tokenizer.model_input_names and "attention_mask" not in self._columns

    def padded(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Returns the columns of `rows` (`[B]`, numbers in the dataset) as int64 `[B, L]`, padded to the longest row.

        The result equals that of `tokenizer.pad`, without a Python object for every token.
        """
        lengths, starts = self.lengths[rows - self.start], self._starts[rows - self.start]
        width = max(1, int(lengths.max()))
        shift = width - lengths if self._left else np.zeros_like(lengths)
        position = np.arange(width) - shift[:, None]  # [B, L], position of the token within its row
        inside = (position >= 0) & (position < lengths[:, None])
        source = (starts[:, None] + position)[inside]
        batch = {}
        for name, tokens in self._columns.items():
            padded = np.full(inside.shape, self._fill.get(name, 0), dtype=np.int64)
            padded[inside] = tokens[source]
            batch[name] = torch.from_numpy(padded)
        if self._adds_mask:
            batch["attention_mask"] = torch.from_numpy(inside.astype(np.int64))
        return batch

    def batches(self, max_tokens: int) -> list[np.ndarray]:
        """Returns row numbers of the dataset in batches of at most `max_tokens` tokens (`token_budget_batches`)."""
        return [self.start + rows for rows in token_budget_batches(self.lengths, max_tokens)]


def token_windows(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, rows: int = WINDOW_ROWS
) -> Iterator[TokenWindow]:
    """Yields the dataset's tokens, `rows` rows at a time; reads only columns that the tokenizer makes."""
    columns = [name for name in tokenizer.model_input_names if name in dataset.column_names]
    tables = dataset.select_columns(columns).with_format("arrow")
    for start in range(0, len(dataset), rows):
        yield TokenWindow(tables[start : start + rows], start, tokenizer)
