"""Predictions of a pool with the variance over stochastic passes, and their combination over models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hfssl.functional.uncertainty import entropy

__all__ = ["MCDropoutResult", "combine"]


@dataclass(frozen=True)
class MCDropoutResult:
    """Holds the predictions of T stochastic passes, of one model or of several, for N rows and K classes.

    Attributes:
        mean_probs (`np.ndarray`): Mean of the probabilities over the stochastic passes, `[N, K]`, in dataset order.
        deterministic_probs (`np.ndarray`): Probabilities of a pass without dropout, `[N, K]`; mean over the models.
        predictive_variance (`np.ndarray`): Population variance over the stochastic passes, `[N, K]`.
        vote_shares (`np.ndarray`): Share of the stochastic passes in which the class is the most probable one, `[N,
            K]`.
        bald (`np.ndarray`): BALD uncertainty in nats, `[N]`.
    """

    mean_probs: np.ndarray
    deterministic_probs: np.ndarray
    predictive_variance: np.ndarray
    vote_shares: np.ndarray
    bald: np.ndarray

    @classmethod
    def of_one_pass(cls, probs: np.ndarray) -> MCDropoutResult:
        """Returns the predictions of a single pass without dropout.

        `combine` of such results measures the disagreement of several models: deep ensembles (Lakshminarayanan et al.
        2017).

        Args:
            probs (`np.ndarray`): Probabilities, `[N, K]`.
        """
        votes = (probs.argmax(axis=-1)[:, None] == np.arange(probs.shape[-1])).astype(probs.dtype)
        return cls(probs, probs, np.zeros_like(probs), votes, np.zeros(len(probs), dtype=probs.dtype))

    @property
    def predicted(self) -> np.ndarray:
        """Returns the classes `[N]` int64 with the largest deterministic probabilities."""
        return self.deterministic_probs.argmax(axis=-1)

    @property
    def predicted_class_variance(self) -> np.ndarray:
        """Returns the variance over the passes of the predicted class's probability, `[N]`."""
        return self.variance_of(self.predicted)

    def variance_of(self, classes: np.ndarray) -> np.ndarray:
        """Returns the variance over the passes of the probability of one class per row, `[N]`.

        Args:
            classes (`np.ndarray`): A class of each row, `[N]` int64.
        """
        return np.take_along_axis(self.predictive_variance, classes[:, None], axis=1)[:, 0]

    @property
    def entropy(self) -> np.ndarray:
        """Returns the entropy of `mean_probs`, `[N]` in nats."""
        return entropy(torch.from_numpy(self.mean_probs)).numpy()

    @property
    def variation_ratio(self) -> np.ndarray:
        """Returns the share of the passes that do not predict the most frequently predicted class, `[N]`.

        Freeman (1965).
        """
        return 1.0 - self.vote_shares.max(axis=-1)


def combine(results: Sequence[MCDropoutResult]) -> MCDropoutResult:
    """Returns the result of one run over all passes of all models.

    The passes are a mixture. Its variance is the mean of the models' variances plus the variance of their means, and
    the mean entropy that BALD subtracts is, for each model, H(mean) - BALD (Lakshminarayanan et al. 2017 for the
    ensemble; Houlsby et al. 2011 for BALD).

    Args:
        results (`Sequence[MCDropoutResult]`): One result per model, with equally many passes each.
    """
    mean = _mean(result.mean_probs for result in results)
    second_moment = _mean(result.predictive_variance + result.mean_probs**2 for result in results)
    mean_entropy = _mean(result.entropy - result.bald for result in results)
    return MCDropoutResult(
        mean_probs=mean,
        deterministic_probs=_mean(result.deterministic_probs for result in results),
        predictive_variance=np.maximum(second_moment - mean**2, 0.0),
        vote_shares=_mean(result.vote_shares for result in results),
        bald=np.maximum(entropy(torch.from_numpy(mean)).numpy() - mean_entropy, 0.0),
    )


def _mean(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the mean of the arrays, with at most the sum and one array in memory."""
    count, total = 0, 0.0
    for array in arrays:
        count, total = count + 1, total + array
    return total / count
