"""Rows of the pool that are out of distribution: unlike all labeled rows. Pure functions of arrays."""

from __future__ import annotations

import numpy as np
from sklearn.preprocessing import normalize

__all__ = ["ALARM_SHARE", "LEVEL", "conformal_p_values", "is_ood", "ood_rows"]

LEVEL = 0.05  # rows with at most this p-value are out of distribution: one in twenty of a pool like the labels
ALARM_SHARE = 0.3  # smallest share of rows out of distribution that makes the pool itself doubtful
ROWS_AT_ONCE = 4096
MIN_LABELS = 20  # below, no p-value can be as small as LEVEL


def conformal_p_values(labeled: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Returns a p-value of the distance between each row and its nearest labeled row.

    Conformal anomaly detection (Laxhammar & Falkman 2010): p = (1 + #{labeled rows whose cosine to the nearest *other*
    labeled row is no larger than that of this row to its nearest}) / (L + 1). For rows from the distribution of the
    labeled ones p is uniform: one in twenty has p <= 0.05.

    Args:
        labeled (`np.ndarray`): Embeddings of the labeled rows, `[L, D]`, L at least 2.
        pool (`np.ndarray`): Embeddings of the pool in the same space, `[N, D]`.

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
    # A rounding error must not make the p-value of a copy of a labeled row smaller.
    return (1 + np.searchsorted(usual, nearest + 1e-6, side="right")) / (rows + 1)


def ood_rows(labeled: np.ndarray, pool: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Returns a mask of the rows out of distribution, `[N]` bool; no row is with fewer than 20 labeled rows.

    Args:
        labeled (`np.ndarray`): Embeddings of the labeled rows, `[L, D]`.
        pool (`np.ndarray`): Embeddings of the pool in the same space, `[N, D]`.
        level (`float`, defaults to 0.05): Largest value of `conformal_p_values` of a row out of distribution.
    """
    if len(labeled) < MIN_LABELS:
        return np.zeros(len(pool), dtype=bool)
    return conformal_p_values(labeled, pool) <= level


def is_ood(rows: np.ndarray) -> bool:
    """Returns whether so many rows are out of distribution that the pool itself is doubtful: at least 30%.

    Args:
        rows (`np.ndarray`): Mask of the rows, `[N]` bool; see `ood_rows`.
    """
    return bool(rows.mean() >= ALARM_SHARE)
