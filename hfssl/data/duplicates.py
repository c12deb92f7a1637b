"""Finds duplicate texts: exact duplicates by a normalised key, near duplicates by MinHash.

Two texts are *near duplicates* when the sets of their character 5-grams (lower case, punctuation and runs of white
space read as one space) have a Jaccard similarity of at least `NEAR_DUPLICATE_THRESHOLD` = 0.85. The threshold
corresponds to one changed letter in 62, or to "please" added to 45 letters. Two questions of one pattern ("What is the
capital of Chad ?" and "What is the capital of Cuba ?") have 0.72. Sets of words would be too coarse for short texts: a
typing error changes a whole word.

MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, *Mining of Massive Datasets*, section 3.4) proposes
rows to compare: with 21 bands of 6 rows a pair at the threshold is proposed with probability 1 - (1 - 0.85^6)^21 =
0.99995. Each pair is then compared by its exact Jaccard similarity, so there are no false positives. Rows of one
template share bands by the thousand; `hfssl.data.similarity_join` finds the similar ones among them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hfssl.data.shingles import chunks_of, content_of, folded, hashed_shingles, minhash_bands
from hfssl.data.similarity_join import Components, join_pairs, join_similar, similarities, sorted_unique

__all__ = ["NEAR_DUPLICATE_THRESHOLD", "exact_key", "near_duplicate_components", "similarity"]

NEAR_DUPLICATE_THRESHOLD = 0.85
FEW_ROWS = 16  # rows with the same band of which each pair is compared
PAIR_SEPARATOR = "\x1f"  # ASCII "unit separator": normalisation removes it from texts, so it cannot be forged
_AROUND_PUNCTUATION = re.compile(r"\s*([^\w\s])\s*")


def exact_key(text: str, text_pair: str | None = None) -> str:
    """Returns the key for exact duplicates: NFKC, case-folded, white space collapsed, none around punctuation.

    Punctuation stays: "good :)" and "good :(" differ; "Who won ?" and "who won?" are equal. A text without content has
    the key `""`.
    """
    key = _AROUND_PUNCTUATION.sub(r"\1", " ".join(folded(text).split()))
    return key if text_pair is None else f"{key}{PAIR_SEPARATOR}{exact_key(text_pair)}"


def similarity(a: str, b: str) -> float:
    """Returns the Jaccard similarity in [0, 1] of the two texts' character 5-grams, which defines near duplicates."""
    sets = _sets([content_of(a), content_of(b)])
    return float(similarities(sets, np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64))[0])


def near_duplicate_components(
    texts: Sequence[str], text_pairs: Sequence[str] | None = None, threshold: float = NEAR_DUPLICATE_THRESHOLD
) -> NDArray[np.int64]:
    """Joins exact and near duplicates into connected components.

    With `text_pairs`, both texts of a row must be near duplicates of the other row's. Texts without content are never
    joined.

    Returns:
        `[N]` smallest row number of each row's component; for a row without duplicates, its own number.
    """
    components = Components(len(texts))
    pairs = text_pairs if text_pairs is not None else [None] * len(texts)
    first_with_key: dict[str, int] = {}
    first = np.arange(len(texts), dtype=np.int64)
    for row, (text, pair) in enumerate(zip(texts, pairs, strict=True)):
        key = exact_key(text, pair)
        if key.strip(PAIR_SEPARATOR):
            first[row] = first_with_key.setdefault(key, row)
    components.join(np.arange(len(texts)), first)
    distinct = np.array(list(first_with_key.values()), dtype=np.int64)
    columns = [[content_of(column[row]) for row in distinct] for column in (texts, text_pairs) if column is not None]
    if len(columns) == 1:
        _join_texts(columns[0], threshold, components, distinct)
    elif len(columns) == 2:
        _join_text_pairs(columns, threshold, components, distinct)
    return components.smallest_rows()


def _join_texts(contents: Sequence[str], threshold: float, components: Components, names: NDArray[np.int64]) -> None:
    """Joins near duplicates; `names[i]` is the row of `components` for the text `i`."""
    unique: dict[str, int] = {}
    number = np.array([unique.setdefault(content, len(unique)) for content in contents], dtype=np.int64)
    representative = np.empty(len(unique), dtype=np.int64)
    representative[number[::-1]] = names[::-1]
    components.join(names, representative[number])
    contents = list(unique)
    a, b, crowded = _proposed(minhash_bands(contents))

    # What shares a band with many others is compared group by group, the other pairs one by one.
    group = crowded.labels
    crowd = np.bincount(group, minlength=len(contents))[group] > 1
    rows = np.flatnonzero(crowd)
    if len(rows):
        rows = rows[np.argsort(group[rows], kind="stable")]
        join_similar(_sets([contents[row] for row in rows]), group[rows], threshold, components, representative[rows])
    apart = group[a] != group[b]
    rows, places = np.unique(np.concatenate([a[apart], b[apart]]), return_inverse=True)
    if len(rows):
        a, b = np.split(places, 2)
        join_pairs(_sets([contents[row] for row in rows]), a, b, threshold, components, representative[rows])


def _proposed(bands: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64], Components]:
    """Returns the pairs of rows that share a band with few rows, and components of the rows of all other bands."""
    crowded, proposed, rows = Components(bands.shape[1]), [], bands.shape[1]
    for keys in bands:
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[:1]] + np.uint64(1)))
        sizes = np.diff(starts, append=rows)
        crowd = np.repeat(sizes > FEW_ROWS, sizes)
        crowded.join(order[crowd], order[np.repeat(starts, sizes)][crowd])
        few = order[~crowd]
        for step in range(1, FEW_ROWS):
            same = np.flatnonzero(keys[few[step:]] == keys[few[:-step]])
            if not len(same):
                break
            a, b = few[same], few[same + step]
            proposed.append(np.minimum(a, b) * rows + np.maximum(a, b))
    pairs = sorted_unique(np.concatenate(proposed)) if proposed else np.zeros(0, dtype=np.int64)
    return pairs // max(1, rows), pairs % max(1, rows), crowded


def _join_text_pairs(
    columns: Sequence[Sequence[str]], threshold: float, components: Components, names: NDArray[np.int64]
) -> None:
    """Joins the rows whose first texts are near duplicates, and whose second texts are."""
    rows = len(names)
    cell = np.zeros(rows, dtype=np.int64)
    for contents in columns:  # rows whose first or second texts are in different components are not joined
        alike = Components(rows)
        _join_texts(contents, threshold, alike, np.arange(rows))
        cell = np.unique(cell * rows + alike.labels, return_inverse=True)[1]
    order = np.argsort(cell, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(cell[order])) + 1):
        if len(members) > 1:
            sets = [_sets([contents[row] for row in members]) for contents in columns]
            _join_cell(sets, threshold, components, names[members])


def _join_cell(sets: Sequence[csr_array], threshold: float, components: Components, names: NDArray[np.int64]) -> None:
    """Joins rows of which all sets are similar, by a search in breadth from each row to those not yet reached."""
    left = np.arange(len(names))
    while len(left):
        reached, left = list(left[:1]), left[1:]
        while reached and len(left):
            row = np.full(len(left), reached.pop())
            alike = np.all([similarities(each, row, left) >= threshold for each in sets], axis=0)
            components.join(names[row[alike]], names[left[alike]])
            reached += list(left[alike])
            left = left[~alike]


def _sets(contents: Sequence[str]) -> csr_array:
    """Returns the sets of the texts' 5-grams as rows of ones, `[N, U]`."""
    chunks = []
    for low, high in chunks_of(contents):  # small arrays are sorted in the processor's cache
        hashes, starts = hashed_shingles(contents[low:high])
        chunks.append((starts, *np.unique(hashes, return_inverse=True)))
    known = sorted_unique(np.concatenate([hashes for _, hashes, _ in chunks]))
    columns, lengths = [], []
    for starts, hashes, place in chunks:
        keys = np.repeat(np.arange(len(starts) - 1), np.diff(starts)) * len(known)
        row, column = np.divmod(sorted_unique(keys + np.searchsorted(known, hashes)[place]), len(known))
        columns.append(column.astype(np.int32))
        lengths.append(np.bincount(row))
    columns, offsets = np.concatenate(columns), np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return csr_array(
        (np.ones(len(columns), dtype=np.int8), columns, offsets.astype(np.int32)), shape=(len(contents), len(known))
    )
