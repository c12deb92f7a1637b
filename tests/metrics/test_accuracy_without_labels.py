"""Accuracy without labels, by numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.metrics.accuracy_without_labels import average_thresholded_confidence

# Surer from row to row; whichever class is likelier, the entropy is the same.
SURE = np.array([[0.6, 0.4], [0.3, 0.7], [0.8, 0.2], [0.1, 0.9]])
UNLABELED = np.array([[0.55, 0.45], [0.38, 0.62], [0.74, 0.26], [0.99, 0.01], [0.05, 0.95]])


def test_the_threshold_lies_above_as_many_rows_as_are_wrong():
    # One of four is wrong, so the threshold lies between the entropies at 0.6 and 0.7. At 0.7 the entropy is 0.611, at
    # 0.6 it is 0.673, the middle 0.642; of the unlabeled rows that at 0.55 (0.688) and 0.62 (0.664) are less sure.
    assert average_thresholded_confidence(SURE, [1, 1, 0, 1], UNLABELED) == pytest.approx(3 / 5)
    # Two of four are wrong: between 0.7 (0.611) and 0.8 (0.500), 0.556; 0.74 has 0.573 and falls below.
    assert average_thresholded_confidence(SURE, [1, 0, 0, 1], UNLABELED) == pytest.approx(2 / 5)


@pytest.mark.parametrize(("labels", "expected"), [([0, 1, 0, 1], 1.0), ([1, 0, 1, 0], 0.0)])
def test_all_right_and_all_wrong_need_no_threshold(labels, expected):
    assert average_thresholded_confidence(SURE, labels, UNLABELED) == expected


def test_without_rows_nothing_is_claimed():
    assert average_thresholded_confidence(SURE[:0], [], UNLABELED) is None
    assert average_thresholded_confidence(SURE, [1, 1, 0, 1], UNLABELED[:0]) is None
