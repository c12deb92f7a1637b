"""Loads batches from the labeled and the unlabeled stream: dataset, collator and loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from hfssl.data.sampler import LABELED, UNLABELED, ClassRowStream, RowKey, RowStream, TwoStreamBatchSampler
from hfssl.data.tokenization import Row
from hfssl.data.views.base import View

__all__ = ["TwoStreamCollator", "TwoStreamDataset", "two_stream_loader"]


class TwoStreamDataset(torch.utils.data.Dataset):
    """Fetches `RowKey`s from a labeled and an unlabeled dataset; each row carries its `row`, `draw` and `stream`."""

    def __init__(self, labeled: Dataset | None, unlabeled: Dataset | None):
        self.parts = {LABELED: labeled, UNLABELED: unlabeled}

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts.values() if part is not None)

    def __getitem__(self, key: RowKey) -> Row:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[RowKey]) -> list[Row]:
        """Fetches rows with one Arrow look-up per stream and batch, which is faster than access by row."""
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
    strata: Sequence[int] | None,
    length_bucketing: bool,
    seed: int,
    **options: Any,
) -> DataLoader:
    """Returns one loader over both streams.

    Args:
        labeled (`Dataset | None`): Tokenized labeled rows; may be missing.
        unlabeled (`Dataset | None`): Tokenized unlabeled rows; may be missing if `labeled` is given.
        collator (`TwoStreamCollator`): Collator that makes a batch of rows.
        rows_per_batch (`int`): Number of labeled rows in a batch of one device; of unlabeled rows where there are no
            labeled ones.
        unlabeled_ratio (`int`): Number of unlabeled rows per labeled row.
        batches_per_step (`int`): Batches per optimizer step: gradient accumulation steps x ranks.
        strata (`Sequence[int] | None`): Class number of each labeled row, if batches hold several rows of a class;
            else `None`.
        length_bucketing (`bool`): Whether batches hold unlabeled rows of similar length.
        seed (`int`): Random seed of both streams.
        options (`Any`): Further arguments of the `DataLoader`.
    """
    lengths = None
    if unlabeled is not None and length_bucketing:
        lengths = [len(ids) for ids in unlabeled["input_ids"][:]]  # [:] decodes all rows at once
    if labeled is None:
        labeled_stream = None
    elif strata is not None:
        labeled_stream = ClassRowStream(strata, seed, LABELED)
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
