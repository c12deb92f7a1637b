"""Dropout statistics of several models, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hfssl.functional.uncertainty import bald, predictive_variance, variation_ratio
from hfssl.inference.predictions import MCDropoutResult, combine


def test_combining_models_equals_one_run_over_all_their_passes():
    """Two models, three passes each, two rows, two classes; the joint numbers from the stacked passes themselves."""
    passes = torch.tensor(
        [
            [[[0.9, 0.1], [0.5, 0.5]], [[0.8, 0.2], [0.4, 0.6]], [[0.7, 0.3], [0.6, 0.4]]],
            [[[0.2, 0.8], [0.5, 0.5]], [[0.4, 0.6], [0.5, 0.5]], [[0.3, 0.7], [0.5, 0.5]]],
        ]
    )

    def result(probs):
        return MCDropoutResult(
            mean_probs=probs.mean(0).numpy(),
            vote_shares=nn.functional.one_hot(probs.argmax(-1), 2).float().mean(0).numpy(),
            deterministic_probs=probs[0].numpy(),
            predictive_variance=predictive_variance(probs).numpy(),
            bald=bald(probs).numpy(),
        )

    joint = combine([result(probs) for probs in passes])
    stacked = passes.flatten(0, 1)
    np.testing.assert_allclose(joint.mean_probs, stacked.mean(0), atol=1e-6)
    np.testing.assert_allclose(joint.predictive_variance, predictive_variance(stacked), atol=1e-6)
    np.testing.assert_allclose(joint.bald, bald(stacked), atol=1e-6)
    np.testing.assert_allclose(joint.variation_ratio, variation_ratio(stacked), atol=1e-6)
    # By hand, first row, first class: 0.9 0.8 0.7 0.2 0.4 0.3 have mean 0.55 and mean square 2.23 / 6.
    assert joint.predictive_variance[0, 0] == pytest.approx(2.23 / 6 - 0.55**2, abs=1e-6)
    assert joint.variation_ratio[0] == pytest.approx(0.5)  # three votes each
    np.testing.assert_allclose(joint.deterministic_probs[0], [0.55, 0.45], atol=1e-6)
    assert joint.predicted.tolist() == [0, 0]
