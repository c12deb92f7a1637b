"""Stacking: the weights of several models in a mixture, by the likelihood of labels that none of them has seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["stacking_weights"]

PRIOR_ROWS = 1.0  # pseudo-count of each model, so that no weight is 0
MAX_ITERATIONS, TOLERANCE = 1000, 1e-6


def stacking_weights(
    probs: np.ndarray, labels: np.ndarray, prior_rows: float | Sequence[float] = PRIOR_ROWS
) -> np.ndarray:
    """Returns the mixture weights of H models that maximise the likelihood of held-out labels under a prior.

    Stacking of predictive distributions by the logarithmic score (Yao et al. 2018, section 3.2), maximised by
    expectation maximisation under a Dirichlet prior, so that few labels change little.

    Args:
        probs (`np.ndarray`): Probabilities of each model for rows to which it was not fitted, `[H, L, K]`.
        labels (`np.ndarray`): Class numbers, `[L]`; with L = 0 the weights are those of the prior.
        prior_rows (`float` or `Sequence[float]`, defaults to 1): Pseudo-count of each model, one for all or `[H]`.

    Returns:
        Mixture weights, `[H]`; the sum is 1.
    """
    likelihoods = np.maximum(probs[:, np.arange(len(labels)), labels], 1e-12)
    prior = np.broadcast_to(np.asarray(prior_rows, dtype=np.float64), len(probs))
    mixture = prior / prior.sum()
    for _ in range(MAX_ITERATIONS):
        responsible = mixture[:, None] * likelihoods
        responsible /= responsible.sum(axis=0)
        before, mixture = mixture, (responsible.sum(axis=1) + prior) / (len(labels) + prior.sum())
        if np.abs(mixture - before).max() < TOLERANCE:
            break
    return mixture
