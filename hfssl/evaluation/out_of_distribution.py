"""Rows of the pool that are like nothing that was labeled. Pure functions of arrays."""

from __future__ import annotations

import numpy as np
from sklearn.preprocessing import normalize

__all__ = ["ALARM_SHARE", "LEVEL", "conformal_p_values", "is_ood", "ood_rows"]

LEVEL = 0.05  # rows with a p-value up to this are called novel; of a pool like the labels that is one in twenty
ALARM_SHARE = 0.3  # from this share of novel rows on the pool itself is doubtful
ROWS_AT_ONCE = 4096
MIN_LABELS = 20  # below, no p-value can be as small as LEVEL


def conformal_p_values(labeled: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """How usual the distance to the nearest labeled row is, judged by the labeled rows among themselves.

    Conformal anomaly detection (Laxhammar & Falkman 2010): p = (1 + #{labeled rows whose cosine to the nearest *other*
    labeled row is no larger than that of this row to its nearest}) / (L + 1). For rows that are drawn like the labeled
    ones p is uniform: one in twenty has p <= 0.05.

    Args:
        labeled: `[L, D]` embeddings, L at least 2.
        pool: `[N, D]` embeddings in the same space.

    Returns:
        `[N]`, between 1 / (L + 1) and 1.
    """
    known, rows = normalize(labeled), len(labeled)
    among = known @ known.T
    np.fill_diagonal(among, -np.inf)
    usual = np.sort(among.max(axis=1))
    nearest = np.concatenate(
        [(normalize(pool[i : i + ROWS_AT_ONCE]) @ known.T).max(axis=1) for i in range(0, len(pool), ROWS_AT_ONCE)]
        or [np.zeros(0)]
    )
    # A rounding error must not make a copy of a labeled row look stranger than it is.
    return (1 + np.searchsorted(usual, nearest + 1e-6, side="right")) / (rows + 1)


def ood_rows(labeled: np.ndarray, pool: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """`[N]` bool: rows with `conformal_p_values` of at most `level`; none where fewer than 20 labels say little."""
    if len(labeled) < MIN_LABELS:
        return np.zeros(len(pool), dtype=bool)
    return conformal_p_values(labeled, pool) <= level


def is_ood(rows: np.ndarray) -> bool:
    """Whether so many rows of a pool, `[N]` bool, are out of distribution that the pool itself is doubtful."""
    return bool(rows.mean() >= ALARM_SHARE)
