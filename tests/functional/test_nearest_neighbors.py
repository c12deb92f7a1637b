"""Nearest neighbours: exact ones by hand, approximate ones against exact ones, and rejected input."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.functional import nearest_neighbors as neighbors_module
from hfssl.functional.nearest_neighbors import nearest_neighbors
from tests.helpers.blobs import APPROXIMATE, SEARCHES, blobs


@pytest.mark.parametrize("search", SEARCHES)
def test_neighbors_are_other_rows_and_none_comes_twice(search):
    vectors, _ = blobs(1500, 6)
    vectors[:40] = vectors[0]  # rows that are as near to each other as to themselves
    neighbors, cosines = nearest_neighbors(vectors, 5, search=search)
    assert not (neighbors == np.arange(1500)[:, None]).any()
    assert all(len(set(row)) == 5 for row in neighbors.tolist())
    assert np.allclose(cosines[:40], 1.0, atol=1e-6)


@pytest.mark.parametrize("search", APPROXIMATE)
def test_approximate_searches_find_nearly_all_neighbors_and_the_same_ones_on_every_run(search):
    vectors, _ = blobs(6000, 40)
    exact, _ = nearest_neighbors(vectors, 10, search="exact")
    found, _ = nearest_neighbors(vectors, 10, search=search)
    again, _ = nearest_neighbors(vectors, 10, search=search)
    assert np.array_equal(found, again)
    recall = np.mean([len(set(a) & set(b)) for a, b in zip(exact.tolist(), found.tolist(), strict=True)]) / 10
    assert recall > 0.9


def test_cells_hold_every_row_once_and_stay_small_though_half_of_the_rows_be_equal():
    unit = neighbors_module._unit_rows(blobs(5000, 3)[0])
    unit[1000:3500] = unit[0]
    cells = neighbors_module._cut(unit, np.arange(5000), 0)
    assert np.array_equal(np.sort(np.concatenate(cells)), np.arange(5000))
    assert max(map(len, cells)) <= 2 * neighbors_module.CELL_ROWS
    assert all((np.diff(cell) > 0).all() for cell in cells)


@pytest.mark.parametrize("search", SEARCHES)
def test_neighbors_by_hand_whatever_the_lengths_of_the_vectors(search):
    # At 0, 60 and 90 degrees: cosines 1/2, 3**.5/2 and 0. The nearest of 0 is 1, of 1 is 2, of 2 is 1.
    angles = np.deg2rad([0.0, 60.0, 90.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[1.0], [7.0], [0.02]]
    neighbors, cosines = nearest_neighbors(vectors, 1, search=search)
    assert neighbors.tolist() == [[1], [2], [1]]
    assert np.allclose(cosines, [[0.5], [0.75**0.5], [0.75**0.5]], atol=1e-6)
    assert (neighbors.dtype, cosines.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("rows", [0, 1, 2, 4])
def test_a_row_has_no_more_neighbors_than_there_are_other_rows(rows):
    neighbors, cosines = nearest_neighbors(np.eye(4)[:rows], 3)
    others = [[j for j in range(rows) if j != i] for i in range(rows)]
    assert [sorted(row) for row in neighbors.tolist()] == others
    assert not cosines.any()


def test_what_an_approximate_search_does_not_find_is_marked(monkeypatch):
    # Cells of at most four rows, and only a row's nearest cell is searched: at most four of the ten asked for.
    monkeypatch.setattr(neighbors_module, "CELL_ROWS", 2)
    monkeypatch.setattr(neighbors_module, "PROBES", 1)
    vectors, _ = blobs(60, 6)
    neighbors, cosines = nearest_neighbors(vectors, 10, search="cells")
    found = cosines > -1
    assert found.any()
    assert found.sum(axis=1).max() <= 4
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows, columns = np.nonzero(found)
    assert np.allclose(cosines[found], (unit[rows] * unit[neighbors[rows, columns]]).sum(axis=1), atol=1e-5)


def test_large_pools_are_searched_in_cells_where_faiss_is_missing(monkeypatch):
    vectors, _ = blobs(1500, 6)
    exact, _ = nearest_neighbors(vectors, 5, search="exact")
    assert np.array_equal(nearest_neighbors(vectors, 5)[0], exact)
    monkeypatch.setattr(neighbors_module, "EXACT_ROWS", 1499)
    monkeypatch.setattr(neighbors_module, "PROBES", 1)  # so that cells and the exact search differ
    monkeypatch.setattr(neighbors_module, "find_spec", lambda name: None)
    cells, _ = nearest_neighbors(vectors, 5, search="cells")
    assert not np.array_equal(cells, exact)
    assert np.array_equal(nearest_neighbors(vectors, 5)[0], cells)


def test_the_seed_draws_the_cells(monkeypatch):
    monkeypatch.setattr(neighbors_module, "PROBES", 1)
    vectors, _ = blobs(1500, 6)
    first, other = (nearest_neighbors(vectors, 5, search="cells", seed=seed)[0] for seed in (0, 1))
    assert not np.array_equal(first, other)
