"""Character 5-grams of many texts at once, as sets of hashes, and their MinHash bands."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["BANDS", "chunks_of", "content_of", "folded", "hashed_shingles", "minhash_bands"]

SHINGLE = 5  # characters
BANDS, ROWS_PER_BAND = 21, 6
CHUNK_CHARACTERS = 1 << 15  # so that the arrays of a chunk stay in the processor's cache
MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio (Knuth's multiplicative hashing)
SHIFT = np.uint64(29)


def folded(text: str) -> str:
    """Returns the text in NFKC, case-folded."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


class _PunctuationToSpace(dict):
    """Maps characters for `str.translate`, filled lazily: letters, marks (Indic vowels), digits and emoji stay."""

    def __missing__(self, code: int) -> int:
        category = unicodedata.category(chr(code))
        self[code] = code if category[0] in "LMN" or category == "So" else ord(" ")
        return self[code]


_TO_SPACE = _PunctuationToSpace()
_ASCII_TO_SPACE = bytes(_TO_SPACE[code] for code in range(128)) + bytes(128)


def content_of(text: str) -> str:
    """Returns what the 5-grams are made of: folded, punctuation and runs of white space read as one space.

    A text of nothing but punctuation keeps it.
    """
    if text.isascii():  # twenty times faster than the general way
        content = " ".join(text.lower().encode().translate(_ASCII_TO_SPACE).decode().split())
        return content or " ".join(text.lower().split())
    general = folded(text)
    return " ".join(general.translate(_TO_SPACE).split()) or " ".join(general.split())


def chunks_of(contents: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yields `(low, high)` of ranges of the texts, of about `CHUNK_CHARACTERS` together."""
    low, size = 0, 0
    for row, content in enumerate(contents):
        size += len(content)
        if size >= CHUNK_CHARACTERS:
            yield low, row + 1
            low, size = row + 1, 0
    if low < len(contents):
        yield low, len(contents)


def hashed_shingles(contents: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes the 5-grams of each text, with one space added at both ends; each text has at least one.

    Args:
        contents (`Sequence[str]`): N texts of `content_of`.

    Returns:
        The hashes of all texts, one text after the other, repetitions included, and `[N + 1]` offsets.
    """
    padded = [f" {content} ".ljust(SHINGLE, "\0") for content in contents]
    lengths = np.array([len(text) for text in padded], dtype=np.int64)
    ends = np.cumsum(lengths)
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    windows = len(codes) - SHINGLE + 1
    hashes = np.zeros(windows, dtype=np.uint64)
    for i in range(SHINGLE):
        hashes = (hashes ^ codes[i : i + windows]) * MIXER
        hashes ^= hashes >> SHIFT
    inside = np.ones(windows, dtype=bool)  # false for windows that reach into the next text
    for i in range(1, SHINGLE):
        inside[ends[:-1] - i] = False
    return hashes[inside], np.concatenate([[0], np.cumsum(lengths - SHINGLE + 1)])


def minhash_bands(contents: Sequence[str]) -> NDArray[np.uint64]:
    """Computes one key for each band of 6 MinHash values (Broder 1997) of each text.

    Two texts whose 5-grams have the Jaccard similarity J have the same key in one band with probability J^6.

    Args:
        contents (`Sequence[str]`): N texts of `content_of`.

    Returns:
        Keys, `[BANDS, N]`.
    """
    generator = np.random.default_rng(1)
    # x -> a x + b modulo 2^32 with odd a: the 5-grams are hashed already, so that a cheap family is enough.
    factors = generator.integers(2**32, size=BANDS * ROWS_PER_BAND, dtype=np.uint32) | np.uint32(1)
    offsets = generator.integers(2**32, size=BANDS * ROWS_PER_BAND, dtype=np.uint32)
    keys = np.zeros((BANDS, len(contents)), dtype=np.uint64)
    for low, high in chunks_of(contents):
        hashes, starts = hashed_shingles(contents[low:high])
        words = (hashes >> np.uint64(32)).astype(np.uint32)
        values = np.empty_like(words)
        for number, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
            np.multiply(words, factor, out=values)
            np.add(values, offset, out=values)
            smallest = np.minimum.reduceat(values, starts[:-1])
            band = keys[number // ROWS_PER_BAND, low:high]
            np.bitwise_xor(band, smallest, out=band)
            np.multiply(band, MIXER, out=band)
            np.bitwise_xor(band, band >> SHIFT, out=band)
    return keys
