"""The metrics as objects of the `evaluate` library."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.metrics.classification import evaluate_probs
from hfssl.metrics.evaluate_metrics import METRICS


def test_hub_metrics_give_the_same_numbers_offline():
    probs = [[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]
    labels = np.array([0, 1, 1])
    expected = evaluate_probs(probs, labels)
    for name, metric_class in METRICS.items():
        predictions = probs if name in ("nll", "ece") else np.argmax(probs, axis=1)
        result = metric_class().compute(predictions=predictions, references=labels)
        assert result == {name: pytest.approx(expected[name])}


def test_hub_metrics_accumulate_batches_and_pass_options_on():
    metric = METRICS["ece"]()
    metric.add_batch(predictions=[[0.9, 0.1]] * 4, references=[0, 0, 0, 1])
    metric.add_batch(predictions=[[0.55, 0.45]] * 2, references=[0, 0])
    assert metric.compute(bins=5) == {"ece": pytest.approx(0.25)}
