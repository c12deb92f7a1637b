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
