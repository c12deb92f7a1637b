"""Tells of text columns that hold no texts: numbers, dates, ids, or nearly the same text in every row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from hfssl.data.duplicates import similarity

__all__ = ["text_warnings"]

SAMPLE = 1000  # texts looked at
MOST = 0.9  # share of them that must be alike
MIN_TEXTS = 5
ALIKE = 0.7  # similarity of two texts that differ in little
_NUMBER = re.compile(r"[+-]?[\d\s.,'’]*\d[\d\s.,'’]*%?([eE][+-]?\d+)?|[€$£¥]\s?[\d.,]+|[\d.,]+\s?[€$£¥]")
_MONTH = "jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz]"
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}"
    rf"|\d{{1,2}}\.?[ -]({_MONTH})[a-z]*\.?[ -]\d{{2,4}}|({_MONTH})[a-z]*\.? \d{{1,2}},? \d{{4}})"
    r"([T ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[ap]m)?(Z|[+-]\d{2}:?\d{2})?)?|\d{1,2}:\d{2}(:\d{2})?",
    re.IGNORECASE,
)
# One word with a digit, or a long run of hexadecimal digits, or an address.
_ID = re.compile(r"(?=\S*\d)\S+|[0-9a-fA-F-]{16,}|\S+@\S+\.\S+|https?://\S+")


def text_warnings(texts: Sequence[str], column: str, source: str, others: Sequence[str] = ()) -> list[str]:
    """Returns a sentence if a text column holds something else.

    Args:
        texts (`Sequence[str]`): Texts of a table.
        column (`str`): Name of the column.
        source (`str`): Name of the table.
        others (`Sequence[str]`, defaults to `()`): Names of other columns, one of which may hold the texts.

    Example:
        >>> text_warnings(["12", "7.5", "1,000", "3", "44"], "n", "t.csv")[0].split(":")[0]
        "the text column 'n' of 't.csv' holds numbers"
    """
    step = max(1, len(texts) // SAMPLE)
    sample = [text.strip() for text in texts[::step] if text.strip()][: SAMPLE + 1]
    if len(sample) < MIN_TEXTS:
        return []
    what = _kind(sample)
    if what is None:
        return []
    hint = f" (others are {', '.join(map(repr, list(others)[:6]))})" if others else ""
    return [
        f"the text column '{column}' of '{source}' holds {what}: check that it is the right one; --text-column names "
        f"another{hint}."
    ]


def _kind(sample: Sequence[str]) -> str | None:
    kinds = (("dates", _DATE), ("numbers", _NUMBER), ("ids", _ID))
    for name, pattern in kinds:
        if sum(pattern.fullmatch(text) is not None for text in sample) < MOST * len(sample):
            continue
        if name != "ids" or len(set(sample)) >= MOST * len(sample):
            return name
    if len(set(sample)) <= max(1, 0.02 * len(sample)):
        return f"only {len(set(sample))} different text{'s' if len(set(sample)) > 1 else ''}"
    # Neighbours in a random order: alphabetical or grouped rows would look alike.
    order = np.random.default_rng(0).permutation(len(sample))[:200]
    alike = [similarity(sample[a], sample[b]) >= ALIKE for a, b in pairwise(order)]
    return "nearly the same text in every row" if np.mean(alike) >= MOST else None
