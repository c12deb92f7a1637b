"""Numbers in words."""

from __future__ import annotations

import pytest

from hfssl.reporting.formatting import duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (125, "2 min 5 s"), (7640, "2 h 7 min")]
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
