"""The dataset behind the two-stream loader, and the collator that turns its rows into batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from torch.utils.data import DataLoader
from transformers import BatchEncoding, PreTrainedTokenizerBase

from hfssl.data.sampler import LABELED, UNLABELED, ClassRowStream, RowKey, RowStream, TwoStreamBatchSampler
from hfssl.runtime.progress import library_bars

__all__ = [
    "PlainView",
    "TwoStreamCollator",
    "TwoStreamDataset",
    "View",
    "encode_texts",
    "map_in_memory",
    "pad_tokens",
    "tokenize_dataset",
    "told_columns",
    "two_stream_loader",
]

Row = dict[str, Any]


class View(Protocol):
    """One way of presenting rows to the model; an objective names the views that it needs."""

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """Collates rows (each with `row` and `draw` beside its columns) into padded tensors `[B, L]`."""
        ...


class TwoStreamDataset(torch.utils.data.Dataset):
    """Fetches `RowKey`s from a labeled and an unlabeled dataset; each row carries its `row`, `draw` and `stream`."""

    def __init__(self, labeled: Dataset | None, unlabeled: Dataset | None):
        self.parts = {LABELED: labeled, UNLABELED: unlabeled}

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts.values() if part is not None)

    def __getitem__(self, key: RowKey) -> Row:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[RowKey]) -> list[Row]:
        """One Arrow look-up a stream and batch; row-wise access costs several times as much."""
        rows: list[Row] = []
        for stream, part in self.parts.items():
            wanted = [key for key in keys if key.stream == stream]
            if not wanted:
                continue
            columns = part[[key.row for key in wanted]]
            for i, key in enumerate(wanted):
                row = {name: values[i] for name, values in columns.items()}
                rows.append(row | {"row": key.row, "draw": key.draw, "stream": stream})
        return rows


class PlainView:
    """Rows as they are: tokenizer columns padded to the longest row, every other number stacked.

    Columns of numbers or of equally long lists of numbers become tensors under their own names (`labels`, `weight`
    `[B]`, `pseudo_probs` `[B, K]`); columns of text are left behind.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        batch = pad_tokens(rows, self.tokenizer)
        for name, value in rows[0].items():
            if name in self.tokenizer.model_input_names or name in ("row", "draw", "stream") or not _is_numeric(value):
                continue
            batch[name] = torch.tensor([row[name] for row in rows])
        return batch


def pad_tokens(rows: list[Row], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """The tokenizer's columns of `rows` as `[B, L]` tensors, padded to the longest row on the tokenizer's side.

    Does what `tokenizer.pad` does, several times as fast: a mask is made for rows without one.
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


def _is_numeric(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, int | float)


class TwoStreamCollator:
    """Collates rows into `{"labeled": batch, "unlabeled": {view name: batch}}`; an absent stream is left out."""

    def __init__(self, labeled_view: View, unlabeled_views: Mapping[str, View]):
        self.labeled_view, self.unlabeled_views = labeled_view, dict(unlabeled_views)

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        labeled = [row for row in rows if row["stream"] == LABELED]
        unlabeled = [row for row in rows if row["stream"] == UNLABELED]
        batch: dict[str, Any] = {}
        if labeled:
            batch[LABELED] = self.labeled_view(labeled)
        if unlabeled:
            batch[UNLABELED] = {name: view(unlabeled) for name, view in self.unlabeled_views.items()}
        return batch


def two_stream_loader(
    labeled: Dataset | None,
    unlabeled: Dataset | None,
    collator: TwoStreamCollator,
    *,
    rows_per_batch: int,
    unlabeled_ratio: int,
    batches_per_step: int,
    compares_rows: bool,
    length_bucketing: bool,
    seed: int,
    **options: Any,
) -> DataLoader:
    """One loader over both streams.

    Args:
        labeled: tokenized rows; with `labels` where `compares_rows`. May be missing.
        unlabeled: tokenized rows; may be missing, but not both.
        collator: makes a batch of the rows.
        rows_per_batch: labeled rows in a batch of one device, or unlabeled ones where there are no others.
        unlabeled_ratio: unlabeled rows a labeled one.
        batches_per_step: gradient accumulation steps x ranks.
        compares_rows: whether a batch holds several rows of a class.
        length_bucketing: whether unlabeled rows of like length meet.
        seed: of both streams.
        options: of the `DataLoader`.
    """
    lengths = None
    if unlabeled is not None and length_bucketing:
        lengths = [len(ids) for ids in unlabeled["input_ids"][:]]  # [:] decodes all at once
    if labeled is None:
        labeled_stream = None
    elif compares_rows:
        labeled_stream = ClassRowStream(labeled["labels"][:], seed, LABELED)
    else:
        labeled_stream = RowStream(len(labeled), seed, LABELED)
    sampler = TwoStreamBatchSampler(
        labeled_stream,
        None if unlabeled is None else RowStream(len(unlabeled), seed, UNLABELED, lengths),
        labeled_per_batch=rows_per_batch,
        unlabeled_per_batch=rows_per_batch * (1 if labeled is None else unlabeled_ratio),
        batches_per_step=batches_per_step,
    )
    return DataLoader(TwoStreamDataset(labeled, unlabeled), batch_sampler=sampler, collate_fn=collator, **options)


def told_columns(tokenizer: PreTrainedTokenizerBase, has_pairs: bool) -> list[str]:
    """The tokenizer's columns that say more of an unpadded row than its `input_ids` do, these included.

    A mask of ones does not, nor do segment numbers that are 0, which is what a model without them takes. XLNet's
    single texts have others.
    """
    names = [name for name in tokenizer.model_input_names if name != "attention_mask"]
    if not has_pairs and "token_type_ids" in names and not any(tokenizer("a")["token_type_ids"]):
        names.remove("token_type_ids")
    return names


def encode_texts(batch: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, max_length: int) -> BatchEncoding:
    """Tokens of `text` (with `text_pair`, where there is one), unpadded.

    Texts are cut at `max_length` tokens, or at what the tokenizer itself allows if that is less: a longer row would
    reach beyond the model's positions.
    """
    longest = min(max_length, tokenizer.model_max_length)
    return tokenizer(batch["text"], batch.get("text_pair"), truncation=True, max_length=longest)


def tokenize_dataset(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Adds the tokenizer's columns to a dataset with `text` (and optionally `text_pair`).

    Texts are cut as by `encode_texts`. A column `label` becomes `labels`. All other columns are kept. A dataset that
    already has `input_ids` is returned unchanged. Of the tokenizer's columns those that say nothing are left out
    (`told_columns`): they would take memory for every token of a pool.
    """
    if "input_ids" in dataset.column_names:
        return dataset
    told = told_columns(tokenizer, has_pairs="text_pair" in dataset.column_names)

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
    """`dataset.map` over batches, with a bar that says what is done, and nothing read from a cache or written to one.

    A cache keyed by a hash of the tokenizer object would go stale silently. And the hash would take longer than the
    tokens of a few hundred rows, so that the result gets a random fingerprint instead.
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
