"""Hides tokens of a row from the model (Cutoff, Shen et al. 2020): pure functions of the row and a random generator.

A hidden token has attention 0: no other token sees it, and positions stay. Special tokens are never hidden, and at
least one other token stays.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["TOKEN_VIEWS", "span_cutoff", "token_cutoff"]

TokenFunction = Callable[[np.ndarray, np.random.Generator, float], np.ndarray]


def token_cutoff(free: np.ndarray, generator: np.random.Generator, rate: float = 0.15) -> np.ndarray:
    """Returns the positions of `rate` of the tokens, drawn without replacement (Shen et al. 2020, section 3.2).

    Args:
        free (`np.ndarray`): `[N]` positions of the tokens that are not special.
        generator (`np.random.Generator`): Source of all randomness.
        rate (`float`, defaults to 0.15): Share of the tokens.

    Example:
        >>> token_cutoff(np.arange(1, 11), np.random.default_rng(0), 0.2).tolist()
        [5, 7]
    """
    count = _count(len(free), rate, generator)
    return np.sort(free[generator.permutation(len(free))[:count]])


def span_cutoff(free: np.ndarray, generator: np.random.Generator, rate: float = 0.15) -> np.ndarray:
    """Returns the positions of one contiguous span with `rate` of the tokens (Shen et al. 2020, section 3.2).

    Args:
        free (`np.ndarray`): `[N]` positions of the tokens that are not special.
        generator (`np.random.Generator`): Source of all randomness.
        rate (`float`, defaults to 0.15): Share of the tokens.
    """
    count = _count(len(free), rate, generator)
    start = int(generator.integers(0, len(free) - count + 1))
    return free[start : start + count]


def _count(tokens: int, rate: float, generator: np.random.Generator) -> int:
    """Returns rate x tokens, rounded up or down by chance so that the expectation is exact; one token stays."""
    return max(0, min(tokens - 1, int(rate * tokens + generator.random())))


TOKEN_VIEWS: dict[str, tuple[TokenFunction, float]] = {
    "token_cutoff": (token_cutoff, 0.15),
    "span_cutoff": (span_cutoff, 0.15),
}
"""Name -> function of (free positions, generator, share) and its default share."""
