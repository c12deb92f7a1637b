"""Samples batches from two streams of rows, in an order that depends on the seed and the position only.

Both streams are endless: position `p` of a stream over `n` rows is entry `p % n` of its permutation number `p // n`.
No row is dropped at the end of a pass, a pool smaller than a batch works, and the state is one integer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.utils.data import Sampler

from hfssl.runtime.seeding import torch_generator

__all__ = ["LABELED", "UNLABELED", "ClassRowStream", "RowKey", "RowStream", "TwoStreamBatchSampler"]

LABELED = "labeled"
UNLABELED = "unlabeled"


class RowKey(NamedTuple):
    """Names a row for the dataset: row `row` of stream `stream`, sampled for the `draw`-th time (from 0)."""

    stream: str
    row: int
    draw: int


class RowStream:
    """Yields `num_rows` rows in an endless, seeded, shuffled stream.

    Args:
        num_rows (`int`): Number of rows in the stream's dataset, at least 1.
        seed (`int`): The run's data seed.
        name (`str`): Name of the stream; streams of different names are independent.
        lengths (`Sequence[int]`, *optional*): Number of tokens of each row, `[num_rows]`. If given, batches hold rows
            of similar length (see `batches`).
    """

    BATCHES_PER_WINDOW = 50

    def __init__(self, num_rows: int, seed: int, name: str, lengths: Sequence[int] | None = None):
        self.num_rows, self.seed, self.name, self.lengths = num_rows, seed, name, lengths
        self._permutations: dict[int, list[int]] = {}

    def _permutation(self, draw: int) -> list[int]:
        if draw not in self._permutations:
            generator = torch_generator(self.seed, self.name, "permutation", draw)
            # Two passes are enough: positions are read in order, and a window spans few passes at a time.
            while len(self._permutations) > 1 and self.num_rows > 10_000:
                self._permutations.pop(next(iter(self._permutations)))
            self._permutations[draw] = torch.randperm(self.num_rows, generator=generator).tolist()
        return self._permutations[draw]

    def _key(self, position: int) -> RowKey:
        draw, offset = divmod(position, self.num_rows)
        return RowKey(self.name, self._permutation(draw)[offset], draw)

    def batches(self, first: int, size: int) -> Iterator[list[RowKey]]:
        """Yields batches number `first`, `first + 1`, ... of `size` rows each, without end.

        With `lengths`, the rows of each window of 50 batches are sorted by length, cut into batches, and the batches
        are shuffled. This reduces padding, while the rows of a window stay random. The result still depends on the
        seed, `size` and the batch number only.
        """
        number = first
        while True:
            if self.lengths is None:
                yield [self._key(position) for position in range(number * size, (number + 1) * size)]
                number += 1
                continue
            window, offset = divmod(number, self.BATCHES_PER_WINDOW)
            yield from self._bucketed_window(window, size)[offset:]
            number = (window + 1) * self.BATCHES_PER_WINDOW

    def _bucketed_window(self, window: int, size: int) -> list[list[RowKey]]:
        start = window * self.BATCHES_PER_WINDOW * size
        keys = [self._key(position) for position in range(start, start + self.BATCHES_PER_WINDOW * size)]
        keys.sort(key=lambda key: self.lengths[key.row])
        generator = torch_generator(self.seed, self.name, "window", window)
        order = torch.randperm(self.BATCHES_PER_WINDOW, generator=generator).tolist()
        return [keys[i * size : (i + 1) * size] for i in order]


class ClassRowStream(RowStream):
    """Yields batches with several rows of each of several classes, without end, for losses that compare rows.

    A batch of S rows has S / 2 classes with two rows each, or, where there are fewer classes, all of them with S / K
    rows each. These classes and rows depend on the seed and the batch number only. A batch costs O(K + S) for any
    number of rows (a list of all pairs of rows would cost O(n^2)).

    Args:
        labels (`Sequence[int]`): Class number of each row, from 0.
        seed (`int`): The run's data seed.
        name (`str`): Name of the stream.
    """

    def __init__(self, labels: Sequence[int], seed: int, name: str):
        super().__init__(len(labels), seed, name)
        labels = torch.as_tensor(labels)
        self.rows_by_class = [torch.nonzero(labels == k).flatten() for k in labels.unique().tolist()]

    def batches(self, first: int, size: int) -> Iterator[list[RowKey]]:
        """Yields batches number `first`, `first + 1`, ... of `size` rows each, without end."""
        number = first
        while True:
            yield self._batch(number, size)
            number += 1

    def _batch(self, number: int, size: int) -> list[RowKey]:
        generator = torch_generator(self.seed, self.name, "classes", number)
        classes = torch.randperm(len(self.rows_by_class), generator=generator).tolist()
        classes = classes[: max(1, size // 2)]
        keys: list[RowKey] = []
        for i, k in enumerate(classes):
            rows = self.rows_by_class[k]
            share = size // len(classes) + (i < size % len(classes))
            shuffled = torch.randperm(len(rows), generator=generator).tolist()
            # A class with fewer rows than its share repeats rows: another dropout mask makes another view.
            keys += [RowKey(self.name, int(rows[shuffled[j % len(rows)]]), number) for j in range(share)]
        return keys


class TwoStreamBatchSampler(Sampler[list[RowKey]]):
    """Samples batches of labeled and unlabeled rows.

    An epoch is one pass over the unlabeled rows when there are any, else over the labeled rows, rounded down to whole
    optimizer steps (and up to one). Either stream may be missing.

    The rows of one *optimizer step* are sampled together and then cut into `batches_per_step` batches, so that batch 8
    x accumulation 1, batch 1 x accumulation 8 and batch 4 on two ranks use the same rows at the same step.

    Args:
        labeled (`RowStream`, *optional*): Stream of labeled rows.
        unlabeled (`RowStream`, *optional*): Stream of unlabeled (or pseudo-labeled) rows.
        labeled_per_batch (`int`): Number of labeled rows in a batch of one device.
        unlabeled_per_batch (`int`): Number of unlabeled rows in a batch of one device.
        batches_per_step (`int`): Batches per optimizer step: gradient accumulation steps x ranks.
    """

    def __init__(
        self,
        labeled: RowStream | None,
        unlabeled: RowStream | None,
        *,
        labeled_per_batch: int,
        unlabeled_per_batch: int,
        batches_per_step: int = 1,
    ):
        self.streams = [
            (stream, per_batch)
            for stream, per_batch in ((labeled, labeled_per_batch), (unlabeled, unlabeled_per_batch))
            if stream is not None and per_batch > 0
        ]
        if not self.streams:
            raise ValueError("TwoStreamBatchSampler needs labeled or unlabeled rows; got neither.")
        self.batches_per_step = batches_per_step
        self.epoch = 0
        # Read by accelerate's BatchSamplerShard, which gives batch i to rank i % world.
        self.batch_size = sum(per_batch for _, per_batch in self.streams)
        self.drop_last = True

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch whose batches the next iteration yields."""
        self.epoch = epoch

    @property
    def steps_per_epoch(self) -> int:
        """Returns the number of optimizer steps in one epoch."""
        stream, per_batch = self.streams[-1]
        return max(1, stream.num_rows // (per_batch * self.batches_per_step))

    def __len__(self) -> int:
        return self.steps_per_epoch * self.batches_per_step

    def __iter__(self) -> Iterator[list[RowKey]]:
        first = self.epoch * self.steps_per_epoch
        steps = [stream.batches(first, per_batch * self.batches_per_step) for stream, per_batch in self.streams]
        for _ in range(self.steps_per_epoch):
            rows = [(next(batches), per_batch) for batches, (_, per_batch) in zip(steps, self.streams, strict=True)]
            for i in range(self.batches_per_step):
                yield [key for keys, per_batch in rows for key in keys[i * per_batch : (i + 1) * per_batch]]
