"""One label per text: losses, units, strata and decisions by hand; input that a task rejects, in one sentence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hfssl.tasks.registry import get_task
from hfssl.tasks.sequence_classification import SequenceClassification

TASK = get_task()
LOGITS = torch.log(torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]]))  # softmax gives these probabilities back


def test_hard_targets_by_hand():
    expected = -(math.log(0.8) + math.log(0.5) + math.log(0.1)) / 3
    assert TASK.loss(LOGITS, torch.tensor([1, 0, 1])).item() == pytest.approx(expected, rel=1e-6)


def test_smoothing_spreads_a_share_over_all_classes():
    # 0.8 of the target on the class, 0.2 over both: 0.9 and 0.1.
    expected = -(0.9 * math.log(0.8) + 0.1 * math.log(0.2))
    found = TASK.loss(LOGITS[:1], torch.tensor([1]), label_smoothing=0.2)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_soft_targets_with_weights_by_hand():
    targets, weights = torch.tensor([[0.25, 0.75], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([2.0, 1.0, 0.0])
    first = -(0.25 * math.log(0.2) + 0.75 * math.log(0.8))
    expected = (2 * first - math.log(0.5)) / 3  # the mean is over all three rows
    assert TASK.loss(LOGITS, targets, weights).item() == pytest.approx(expected, rel=1e-6)


def test_one_hot_targets_are_hard_targets():
    one_hot = torch.eye(2)[torch.tensor([1, 0, 1])]
    torch.testing.assert_close(TASK.loss(LOGITS, one_hot), TASK.loss(LOGITS, torch.tensor([1, 0, 1])))


@pytest.mark.parametrize(
    ("targets", "more", "message"),
    [
        (torch.tensor([1, 0, 1]), {"weights": torch.ones(3)}, "got class numbers"),
        (torch.eye(2)[torch.tensor([1, 0, 1])], {"label_smoothing": 0.1}, "got probabilities"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(targets, more, message):
    with pytest.raises(ValueError, match=message):
        TASK.loss(LOGITS, targets, **more)


def test_a_row_is_a_unit():
    units = TASK.units(LOGITS, {})
    assert units.logits is LOGITS
    assert units.rows.tolist() == [0, 1, 2]


def test_strata_are_the_classes():
    assert TASK.strata([2, None, 0, -1]).tolist() == [2, -1, 0, -1]


def test_decisions():
    probs = TASK.probs(LOGITS.numpy())
    np.testing.assert_allclose(probs, [[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], rtol=1e-6)
    assert TASK.right(probs, np.array([1, 1, 1])).tolist() == [True, False, False]  # of equals the first is taken


def test_metrics_are_what_evaluate_returns():
    probs, labels = np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([1, 1])
    found = TASK.evaluate(probs, labels)
    assert {metric.name for metric in TASK.metrics} <= set(found)
    assert found["accuracy"] == 0.5
    assert found["nll"] == pytest.approx(TASK.nll(probs, labels)) == pytest.approx(-math.log(0.8 * 0.4) / 2)
    assert TASK.decision_metric in found


def test_class_weights_weigh_hard_targets_by_hand():
    task, logits = SequenceClassification(), torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    weighted = task.with_class_weights(torch.tensor([1.0, 3.0]))
    # -log p: log 2 for class 0 with weight 1, log(4 / 3) for class 1 with weight 3; the weights sum to 4.
    expected = (math.log(2) + 3 * math.log(4 / 3)) / 4
    assert weighted.loss(logits, torch.tensor([0, 1])).item() == pytest.approx(expected)
    soft = torch.eye(2)
    assert weighted.loss(logits, soft).item() == task.loss(logits, soft).item()
    assert task.class_weights is None
