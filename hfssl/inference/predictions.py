"""Predictions of a pool with the spread of stochastic passes, and their combination over models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hfssl.functional.uncertainty import entropy

__all__ = ["MCDropoutResult", "combine"]


@dataclass(frozen=True)
class MCDropoutResult:
    """What T stochastic passes (of one model, or of several) say about N rows and K classes, in dataset order."""

    mean_probs: np.ndarray  # [N, K], mean over the stochastic passes
    deterministic_probs: np.ndarray  # [N, K], of a pass without dropout; mean over the models
    predictive_variance: np.ndarray  # [N, K], population variance over the stochastic passes
    vote_shares: np.ndarray  # [N, K], share of the stochastic passes in which the class is the most probable one
    bald: np.ndarray  # [N] in nats

    @classmethod
    def of_one_pass(cls, probs: np.ndarray) -> MCDropoutResult:
        """What a single pass without dropout says, `[N, K]`, so that `combine` finds what several models disagree on.

        Deep ensembles (Lakshminarayanan et al. 2017).
        """
        votes = (probs.argmax(axis=-1)[:, None] == np.arange(probs.shape[-1])).astype(probs.dtype)
        return cls(probs, probs, np.zeros_like(probs), votes, np.zeros(len(probs), dtype=probs.dtype))

    @property
    def predicted(self) -> np.ndarray:
        """`[N]` int64, argmax of the deterministic probabilities."""
        return self.deterministic_probs.argmax(axis=-1)

    @property
    def predicted_class_variance(self) -> np.ndarray:
        """`[N]`, variance over the passes of the predicted class's probability."""
        return self.variance_of(self.predicted)

    def variance_of(self, classes: np.ndarray) -> np.ndarray:
        """`[N]`, variance over the passes of the probability of a class of each row, `[N]` int64."""
        return np.take_along_axis(self.predictive_variance, classes[:, None], axis=1)[:, 0]

    @property
    def entropy(self) -> np.ndarray:
        """`[N]` in nats, of `mean_probs`."""
        return entropy(torch.from_numpy(self.mean_probs)).numpy()

    @property
    def variation_ratio(self) -> np.ndarray:
        """`[N]`, share of the stochastic passes that do not vote for the most voted class (Freeman 1965)."""
        return 1.0 - self.vote_shares.max(axis=-1)


def combine(results: Sequence[MCDropoutResult]) -> MCDropoutResult:
    """The result that one run over all passes of all models would have given; equally many passes each.

    The passes are a mixture: its variance is the mean of the models' variances plus the variance of their means, and
    the mean entropy that BALD subtracts is, for each model, H(mean) - BALD (Lakshminarayanan et al. 2017 for the
    ensemble; Houlsby et al. 2011 for BALD).
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
    """Their mean, holding no more of them at once than the sum and the next one."""
    count, total = 0, 0.0
    for array in arrays:
        count, total = count + 1, total + array
    return total / count
