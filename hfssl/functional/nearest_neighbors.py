"""Finds nearest neighbours by cosine: exact for small pools, approximate in about N log N time for large ones.

All randomness comes from `seed`: the same seed gives the same neighbours.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from hfssl.errors import DataError

__all__ = ["SEARCHES", "nearest_neighbors"]

logger = logging.getLogger(__name__)

EXACT_ROWS = 10_000  # up to this many rows, every row is compared with every other
CELL_ROWS = 200  # mean size of the cells that the approximate searches cut the rows into
PROBES = 16  # cells that a row is compared with
BRANCHES = 64  # clusters per level of k-means; also cells near its own among which a row selects those to probe
BLOCK = 2**22  # similarities in memory at once: 16 MiB


def nearest_neighbors(
    embeddings: np.ndarray, k: int = 10, *, search: str = "auto", seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Finds each row's k nearest other rows by cosine, in no particular order.

    Args:
        embeddings (`np.ndarray`): `[N, D]`, any scale.
        k (`int`, defaults to `10`): Neighbours per row.
        search (`str`, defaults to `"auto"`): A key of `SEARCHES`; `"auto"` is exact up to 10,000 rows; above that it
            uses faiss where it is installed, else cells.
        seed (`int`, defaults to `0`): Random seed of the approximate searches.

    Returns:
        Row numbers `[N, k]` int32 and cosines `[N, k]` float32. Where an approximate search finds fewer than k, the
        remaining entries have cosine -1 and are invalid.
    """
    if search not in SEARCHES:
        raise ValueError(f"search must be one of {', '.join(SEARCHES)}, got {search!r}.")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    unit = _unit_rows(embeddings)
    rows = len(unit)
    k = min(k, rows - 1)
    if k < 1:
        return np.zeros((rows, 0), dtype=np.int32), np.zeros((rows, 0), dtype=np.float32)
    if (unit @ unit[0]).min() > 1 - 1e-6:
        logger.warning("All %d embeddings are equal: the graph's neighbours are arbitrary and mean nothing.", rows)
    if search == "auto":
        search = "exact" if rows <= EXACT_ROWS else "faiss" if find_spec("faiss") else "cells"
    return SEARCHES[search](unit, k, seed)


def _unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """Returns a float32 copy with rows of length 1; rows of zeros stay zeros."""
    unit = np.array(embeddings, dtype=np.float32, order="C")
    if unit.ndim != 2:
        raise ValueError(f"embeddings must be a matrix [N, D], got an array of shape {unit.shape}.")
    norms = np.sqrt(np.einsum("nd,nd->n", unit, unit))
    if not np.isfinite(norms).all():
        bad = np.flatnonzero(~np.isfinite(norms))
        raise DataError(
            f"Expected finite embeddings, but {len(bad)} of {len(unit)} rows hold NaN, infinity or values too large "
            f"for float32 (first: row {bad[0]}): check the model that made them."
        )
    unit /= np.where(norms > 0, norms, 1.0)[:, None]
    return unit


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    """Returns the positions of the (at most) `count` largest entries along the last axis, in no order."""
    count = min(count, scores.shape[-1])
    return np.argpartition(scores, scores.shape[-1] - count, axis=-1)[..., scores.shape[-1] - count :]


class _Best:
    """Holds the k nearest rows found so far for every row: `neighbors` and `cosines`, both `[N, k]`."""

    def __init__(self, unit: np.ndarray, k: int):
        self.unit, self.k = unit, k
        self.neighbors = np.zeros((len(unit), k), dtype=np.int32)
        self.cosines = np.full((len(unit), k), -1.0, dtype=np.float32)

    def offer(self, rows: np.ndarray, candidates: np.ndarray) -> None:
        """Compares each of `rows` with each of `candidates` (ascending, none offered to these rows before)."""
        step = max(1, BLOCK // len(candidates))
        vectors = self.unit[candidates]
        for some in (rows[start : start + step] for start in range(0, len(rows), step)):
            cosines = self.unit[some] @ vectors.T
            place = np.minimum(np.searchsorted(candidates, some), len(candidates) - 1)
            itself = np.flatnonzero(candidates[place] == some)
            cosines[itself, place[itself]] = -1.0
            top = _largest(cosines, self.k)
            cosines = np.concatenate([self.cosines[some], np.take_along_axis(cosines, top, axis=1)], axis=1)
            neighbors = np.concatenate([self.neighbors[some], candidates[top]], axis=1)
            top = _largest(cosines, self.k)
            self.cosines[some] = np.take_along_axis(cosines, top, axis=1)
            self.neighbors[some] = np.take_along_axis(neighbors, top, axis=1)


def _search_exact(unit: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Compares every row with every other: O(N**2 D)."""
    best = _Best(unit, k)
    everyone = np.arange(len(unit))
    best.offer(everyone, everyone)
    return best.neighbors, best.cosines


def _search_cells(unit: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Compares every row with the rows of the `PROBES` cells whose centres are nearest to it (an inverted file).

    Cells hold at most 2 `CELL_ROWS` rows and are found by k-means of k-means, log N levels of O(N D); each row then
    costs the same, however many there are.
    """
    cells = _cut(unit, np.arange(len(unit)), seed)
    probed = _probes(unit, cells)
    order = np.argsort(probed, axis=None, kind="stable")
    ends = np.searchsorted(probed.ravel()[order], np.arange(1, len(cells)))
    best = _Best(unit, k)
    for candidates, slots in zip(cells, np.split(order, ends), strict=True):
        best.offer(slots // probed.shape[1], candidates)
    return best.neighbors, best.cosines


def _cut(unit: np.ndarray, rows: np.ndarray, seed: int) -> list[np.ndarray]:
    """Cuts `rows` (ascending) into cells of near rows, each ascending and at most 2 `CELL_ROWS` long."""
    if len(rows) <= 2 * CELL_ROWS:
        return [rows]
    clusters = min(BRANCHES, len(rows) // CELL_ROWS)
    # No stopping rule: both depend on sums whose last bits vary with the number of threads.
    means = MiniBatchKMeans(
        clusters, init="random", n_init=1, max_iter=2, batch_size=4096, tol=0.0, max_no_improvement=None,
        reassignment_ratio=0.0, random_state=seed,
    )  # fmt: skip
    labels = means.fit_predict(unit if len(rows) == len(unit) else unit[rows])
    cells = []
    for label in np.unique(labels):
        part = rows[labels == label]
        # A cluster with most of the rows consists of (nearly) equal rows, which k-means cannot split.
        whole = len(part) <= len(rows) / 2
        cells += _cut(unit, part, seed) if whole else np.array_split(part, math.ceil(len(part) / CELL_ROWS))
    return cells


def _probes(unit: np.ndarray, cells: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the nearest cells of each row, `[N, PROBES]`, among the `BRANCHES` cells nearest to its own."""
    centers = _unit_rows(np.stack([unit[rows].mean(axis=0) for rows in cells]))
    probed = np.empty((len(unit), min(PROBES, len(cells))), dtype=np.int32)
    for rows, center in zip(cells, centers, strict=True):
        around = _largest(centers @ center, BRANCHES)
        probed[rows] = around[_largest(unit[rows] @ centers[around].T, PROBES)]
    return probed


def _search_faiss(unit: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Searches the same inverted file with faiss. Its HNSW index with several threads would differ between runs."""
    import faiss

    cells = max(1, len(unit) // CELL_ROWS)
    index = faiss.index_factory(unit.shape[1], f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = seed, 1, 64
    index.nprobe = PROBES
    index.train(unit)
    index.add(unit)
    cosines, neighbors = index.search(unit, k + 1)
    cosines[(neighbors < 0) | (neighbors == np.arange(len(unit))[:, None])] = -1.0
    top = _largest(cosines, k)
    neighbors = np.maximum(np.take_along_axis(neighbors, top, axis=1), 0).astype(np.int32)
    return neighbors, np.take_along_axis(cosines, top, axis=1)


SEARCHES = {"auto": None, "exact": _search_exact, "cells": _search_cells, "faiss": _search_faiss}
