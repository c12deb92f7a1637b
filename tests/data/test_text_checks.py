"""Text columns that hold something else are told before anything trains."""

from __future__ import annotations

import pytest

from hfssl.data.text_checks import text_warnings


@pytest.mark.parametrize(
    ("what", "texts"),
    [
        ("numbers", ["12", "7,50", "1 000", "3%", "€ 44.10", "-1e5"]),
        ("dates", ["2026-01-02", "3.4.2026", "12/31/99 10:00", "5 May 2026", "Jan 3, 2026", "2026-01-02T10:00:00Z"]),
        ("ids", ["T-0001", "a7f", "b@c.de", "https://x.de/1", "9f1b2c3d-aaaa-bbbb", "X9"]),
        ("only 1 different text", ["the same words"] * 6),
        ("nearly the same text", [f"Ticket {n} has been received and will be answered soon" for n in "abcdefgh"]),
    ],
)
def test_columns_without_texts(what, texts):
    (told,) = text_warnings(texts, "t", "x.csv", ["body", "n"])
    assert f"the text column 't' of 'x.csv' holds {what}" in told
    assert "(others are 'body', 'n')" in told


def test_texts_are_texts():
    texts = [
        "the parcel came late",
        "bad",
        "my card was charged 2 times",
        "on 2026-01-02 it broke",
        "good",
        "T-1 is open",
    ]
    assert text_warnings(texts, "t", "x.csv") == []
    assert text_warnings(["12", "13"], "t", "x.csv") == []  # too few to tell
