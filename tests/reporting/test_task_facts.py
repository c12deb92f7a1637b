"""Facts of a task in reports: numbers in tables."""

from __future__ import annotations

import pytest

from hfssl.reporting.task_facts import Metric


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        (Metric("a", "a"), 0.9149, "91.5"),
        (Metric("a", "a", in_points=False), 0.25, "0.250"),
        (Metric("a", "a"), None, "-"),
    ],
)
def test_numbers_in_tables(metric, value, shown):
    assert metric.shown(value) == shown
