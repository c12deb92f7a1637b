"""Coverage: how right a model is where it is sure."""

from __future__ import annotations

import pytest

from hfssl.metrics.selective import coverage_table


def test_coverage_by_hand():
    table = coverage_table([0.95, 0.9, 0.6, 0.4], [True, False, True, False], (0.99, 0.9, 0.5))
    assert [(row["rows"], row["share"], row["accuracy"]) for row in table] == [
        (0, 0.0, None),
        (2, 0.5, 0.5),  # the threshold itself is included
        (3, 0.75, pytest.approx(2 / 3)),
    ]


@pytest.mark.parametrize(("confidence", "right"), [([], []), ([0.5], [True, False]), ([[0.5]], [[True]])])
def test_wrong_shapes_are_refused(confidence, right):
    with pytest.raises(ValueError, match="two arrays"):
        coverage_table(confidence, right)
