"""Embeddings in clusters, and the searches for nearest neighbours that are compared on them; not a test itself."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

needs_faiss = pytest.mark.skipif(find_spec("faiss") is None, reason="faiss is not installed")
APPROXIMATE = ["cells", pytest.param("faiss", marks=needs_faiss)]
SEARCHES = ["exact", *APPROXIMATE]


def blobs(rows: int, centers: int, seed: int = 0, dimensions: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Rows around `centers` directions, and the number of the direction of each."""
    generator = np.random.default_rng(seed)
    which = generator.integers(0, centers, rows)
    directions = generator.standard_normal((centers, dimensions))
    return directions[which] + 0.3 * generator.standard_normal((rows, dimensions)), which
