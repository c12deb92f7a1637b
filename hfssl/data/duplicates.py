"""Finds duplicate texts: exact duplicates by a normalised key, near duplicates by MinHash.

Two texts are *near duplicates* when the sets of their character 5-grams (lower case, punctuation and runs of white
space read as one space) have a Jaccard similarity of at least `NEAR_DUPLICATE_THRESHOLD` = 0.85. The threshold
corresponds to one changed letter in 62, or to "please" added to 45 letters. Two questions of one pattern ("What is the
capital of Chad ?" and "What is the capital of Cuba ?") have 0.72. Sets of words would be too coarse for short texts: a
typing error changes a whole word.

MinHash with banding only proposes pairs (Broder 1997; Leskovec, Rajaraman and Ullman, *Mining of Massive Datasets*,
section 3.4); each is then checked by its exact Jaccard similarity, so there are no false positives. With 21 bands of 6
rows a pair at the threshold is proposed with probability 1 - (1 - 0.85^6)^21 = 0.99995.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

__all__ = ["NEAR_DUPLICATE_THRESHOLD", "exact_key", "near_duplicate_components", "similarity"]

NEAR_DUPLICATE_THRESHOLD = 0.85
SHINGLE = 5  # characters
BANDS, ROWS_PER_BAND = 21, 6
PAIR_SEPARATOR = "\x1f"  # ASCII "unit separator": normalisation removes it from texts, so it cannot be forged
_AROUND_PUNCTUATION = re.compile(r"\s*([^\w\s])\s*")
_MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio (Knuth's multiplicative hashing)


def exact_key(text: str, text_pair: str | None = None) -> str:
    """Returns the key for exact duplicates: NFKC, case-folded, white space collapsed, none around punctuation.

    Punctuation stays: "good :)" and "good :(" differ; "Who won ?" and "who won?" are equal. A text without content has
    the key `""`.
    """
    key = _AROUND_PUNCTUATION.sub(r"\1", " ".join(_folded(text).split()))
    return key if text_pair is None else f"{key}{PAIR_SEPARATOR}{exact_key(text_pair)}"


def similarity(a: str, b: str) -> float:
    """Returns the Jaccard similarity in [0, 1] of the two texts' character 5-grams, which defines near duplicates."""
    return _jaccard(_shingles(a), _shingles(b))


def near_duplicate_components(
    texts: Sequence[str], text_pairs: Sequence[str] | None = None, threshold: float = NEAR_DUPLICATE_THRESHOLD
) -> NDArray[np.int64]:
    """Joins exact and near duplicates into connected components.

    With `text_pairs`, both texts of a row must be near duplicates of the other row's. Texts without content are never
    joined.

    Returns:
        `[N]` smallest row number of each row's component; for a row without duplicates, its own number.
    """
    parent = np.arange(len(texts), dtype=np.int64)
    pairs = text_pairs if text_pairs is not None else [None] * len(texts)
    first_with_key: dict[str, int] = {}
    for row, (text, pair) in enumerate(zip(texts, pairs, strict=True)):
        key = exact_key(text, pair)
        if key.strip(PAIR_SEPARATOR):
            parent[row] = first_with_key.setdefault(key, row)
    distinct = list(first_with_key.values())

    @lru_cache(maxsize=4096)  # a template's candidates are compared again and again
    def shingles_of(row: int) -> tuple[NDArray[np.uint64], ...]:
        return (_shingles(texts[row]),) if pairs[row] is None else (_shingles(texts[row]), _shingles(pairs[row]))

    for row, other in _candidates(distinct, shingles_of):
        a, b = _root(parent, row), _root(parent, other)
        if a == b:
            continue
        similarities = map(_jaccard, shingles_of(row), shingles_of(other))
        if all(value >= threshold for value in similarities):
            parent[max(a, b)] = min(a, b)
    return np.array([_root(parent, row) for row in range(len(texts))], dtype=np.int64)


def _candidates(
    rows: Sequence[int], shingles_of: Callable[[int], tuple[NDArray[np.uint64], ...]]
) -> Iterator[tuple[int, int]]:
    """Yields pairs of rows that share a whole band of their MinHash signature."""
    # The last bit separates the second text's 5-grams from the first's. If both texts reach the threshold, so does the
    # union of the two marked sets, so that no pair of rows is missed.
    marked = ([(s & ~np.uint64(1)) | np.uint64(i) for i, s in enumerate(shingles_of(row))] for row in rows)
    low_words = ((np.concatenate(sets) & np.uint64(0xFFFFFFFF)).tolist() for sets in marked)
    index = MinHashLSH(num_perm=BANDS * ROWS_PER_BAND, params=(BANDS, ROWS_PER_BAND))
    # The 5-grams are already hashed, so `int` replaces MinHash's SHA-1, which would take most of the time.
    sketches = MinHash.generator(low_words, num_perm=BANDS * ROWS_PER_BAND, hashfunc=int)
    for row, sketch in zip(rows, sketches, strict=True):
        for other in index.query(sketch):
            yield row, other
        index.insert(row, sketch, check_duplication=False)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


class _PunctuationToSpace(dict):
    """Maps characters for `str.translate`, filled lazily: letters, marks (Indic vowels), digits and emoji stay."""

    def __missing__(self, code: int) -> int:
        category = unicodedata.category(chr(code))
        self[code] = code if category[0] in "LMN" or category == "So" else ord(" ")
        return self[code]


_TO_SPACE = _PunctuationToSpace()


def _shingles(text: str) -> NDArray[np.uint64]:
    """Returns sorted, distinct 64-bit hashes of the text's character 5-grams (at least one)."""
    folded = _folded(text)
    content = " ".join(folded.translate(_TO_SPACE).split()) or " ".join(folded.split())
    codes = np.frombuffer(f" {content} ".encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    codes = np.pad(codes, (0, max(0, SHINGLE - len(codes))))
    windows = len(codes) - SHINGLE + 1
    hashes = np.zeros(windows, dtype=np.uint64)
    for i in range(SHINGLE):
        hashes = (hashes ^ codes[i : i + windows]) * _MIXER
        hashes ^= hashes >> np.uint64(29)
    return np.unique(hashes)


def _jaccard(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> float:
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def _root(parent: NDArray[np.int64], row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]  # path halving keeps the trees flat
        row = int(parent[row])
    return int(row)
