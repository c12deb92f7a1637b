"""Joins the sets of a collection that are alike, also where thousands of them share most of their elements.

Texts of one template ("Your order 4711 has been shipped") share most of their 5-grams, so that to compare all pairs
takes quadratic time. `join_similar` finds the same components by *prefix filtering* (Bayardo, Ma and Srikant 2007,
*Scaling up all pairs similarity search*; Xiao et al. 2008, PPJoin), applied again and again: in a group of rows, with
the elements in order of their frequency in the group, two similar sets must share one of the first elements of each,
since each may miss only a few. The rows with such an element in common are a smaller group, in which that element
counts as shared, and so do the elements that all of its rows have. Groups end where all of their rows are joined,
where no row may miss as much as it would have to, or where they are small enough to compare all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

__all__ = ["Components", "join_pairs", "join_similar", "similarities", "sorted_unique"]

Ints = NDArray[np.int64]

LEAF = 4  # rows of a group of which all pairs are compared
COMPARED_PAIRS = 1 << 12  # pairs compared at once
GROUP_ELEMENTS = 1 << 21  # elements of groups that are split at once, which bounds the memory


class Components:
    """Holds the connected components of N rows; `labels` `[N]` numbers them."""

    def __init__(self, rows: int):
        self.labels = np.arange(rows, dtype=np.int64)

    def join(self, a: Ints, b: Ints) -> None:
        """Joins the components of `a[i]` and `b[i]` for every i."""
        a, b = self.labels[a], self.labels[b]
        new = a != b
        if new.any():
            edges = coo_array((np.ones(new.sum(), dtype=np.int8), (a[new], b[new])), shape=(len(self.labels),) * 2)
            self.labels = connected_components(edges, directed=False)[1].astype(np.int64)[self.labels]

    def smallest_rows(self) -> Ints:
        """Returns the smallest row number of each row's component, `[N]`."""
        first = np.full(len(self.labels), len(self.labels), dtype=np.int64)
        np.minimum.at(first, self.labels, np.arange(len(self.labels)))
        return first[self.labels]


def sorted_unique(values: Ints) -> Ints:
    """Returns the distinct values in order; `numpy.unique` takes ten times as long, by a hash table (numpy 2.4)."""
    values = np.sort(values)
    return values[np.diff(values, prepend=values[:1] - 1) != 0]


def similarities(sets: csr_array, a: Ints, b: Ints) -> NDArray[np.float64]:
    """Returns the Jaccard similarity of the sets in the rows `a[i]` and `b[i]` for every i."""
    shared, sizes = np.diff(sets[a].multiply(sets[b]).indptr), np.diff(sets.indptr)
    return shared / (sizes[a] + sizes[b] - shared)


def join_pairs(sets: csr_array, a: Ints, b: Ints, threshold: float, components: Components, names: Ints) -> None:
    """Joins those of the given pairs whose Jaccard similarity reaches the threshold.

    Args:
        sets (`csr_array`): Sets as rows of ones, `[M, U]` for U elements.
        a (`Ints`): Rows of `sets`, `[P]`.
        b (`Ints`): Rows of `sets`, `[P]`.
        threshold (`float`): Least Jaccard similarity, in (0, 1].
        components (`Components`): Components to extend.
        names (`Ints`): Row of `components` for each row of `sets`, `[M]`.
    """
    pairs = sorted_unique(np.minimum(a, b) * sets.shape[0] + np.maximum(a, b))
    for low in range(0, len(pairs), COMPARED_PAIRS):
        a, b = np.divmod(pairs[low : low + COMPARED_PAIRS], sets.shape[0])
        new = components.labels[names[a]] != components.labels[names[b]]
        a, b = a[new], b[new]
        if not len(a):
            continue
        alike = similarities(sets, a, b) >= threshold
        components.join(names[a[alike]], names[b[alike]])


def join_similar(sets: csr_array, groups: Ints, threshold: float, components: Components, names: Ints) -> None:
    """Joins all pairs of one group whose Jaccard similarity reaches the threshold.

    Args:
        sets (`csr_array`): Sets as rows of ones, `[M, U]` for U elements, with sorted indices.
        groups (`Ints`): Number of each row's group, ascending, `[M]`. Pairs across groups are not compared.
        threshold (`float`): Least Jaccard similarity, in (0, 1].
        components (`Components`): Components to extend.
        names (`Ints`): Row of `components` for each row of `sets`, `[M]`.
    """
    group = np.unique(groups, return_inverse=True)[1]
    whole = _Groups(
        group, np.arange(len(names)), np.diff(sets.indptr).astype(np.int64), sets.indices,
        np.ones(len(sets.indices), dtype=np.int64), np.zeros(group[-1] + 1, dtype=np.int64),
    )  # fmt: skip
    _Search(sets, threshold, components, names).visit(whole)


@dataclass
class _Groups:
    """Holds several groups of rows, with the elements of each row that may still turn out to be shared.

    A member is a row in a group. An element of weight w stands for w elements of `sets` that the same members have.
    """

    group: Ints  # [M] group of each member, ascending, without gaps
    row: Ints  # [M]
    length: Ints  # [M] number of elements of each member
    element: Ints  # [T] member after member
    weight: Ints  # [T]
    shared: Ints  # [G] weight that all members of a group have in common, in addition to `element`


class _Search:
    """Splits groups until all of their similar pairs are joined."""

    def __init__(self, sets: csr_array, threshold: float, components: Components, names: Ints):
        self.sets, self.threshold, self.components, self.names = sets, threshold, components, names
        self.sizes = np.diff(sets.indptr).astype(np.int64)
        self.random = np.random.default_rng(0)

    def visit(self, groups: _Groups) -> None:
        """Joins all similar pairs of these groups."""
        smallest = self._smallest_members(groups)
        # Whatever the shared elements prove similar is also similar to the smallest member, and is joined here.
        self._join(groups.row, groups.row[smallest][groups.group])
        smallest = self.sizes[groups.row[smallest]][groups.group]
        for smaller in self._split(groups, smallest, self._undecided(groups.group, groups.row)):
            self.visit(smaller)

    def _join(self, a: Ints, b: Ints) -> None:
        join_pairs(self.sets, a, b, self.threshold, self.components, self.names)

    def _smallest_members(self, groups: _Groups) -> Ints:
        """Returns the member with the fewest elements of each group, `[G]`."""
        order = np.lexsort((self.sizes[groups.row], groups.group))
        return order[np.flatnonzero(np.diff(groups.group, prepend=-1))]

    def _split(self, groups: _Groups, smallest: Ints, undecided: NDArray[np.bool_]) -> Iterator[_Groups]:
        """Joins the pairs of the smallest groups that come of these, and yields the others."""
        if not undecided.any():
            return
        member = np.repeat(np.arange(len(groups.row)), groups.length)
        counts = _count(groups, member, self.random)
        shared = groups.shared + np.bincount(
            counts.group[counts.common], counts.weight[counts.common], len(groups.shared)
        ).astype(np.int64)

        # The most similar other member has at least that size; each member may miss as much weight as `budget`.
        sizes = self.sizes[groups.row]
        other = np.maximum(smallest, _ceil(self.threshold * sizes))
        needed = _ceil(self.threshold / (1 + self.threshold) * (sizes + other)) - shared[groups.group]
        missable = np.where(counts.common[counts.index], 0, groups.weight)
        alone = np.where(counts.number[counts.index] == 1, groups.weight, 0)
        left = np.bincount(member, missable, len(sizes)) - np.bincount(member, alone, len(sizes))
        budget = left.astype(np.int64) - needed

        # Elements in order of their frequency: the number of an element in this order, after its member's number.
        kept = counts.first[counts.index] & (undecided & (budget >= 0))[member]
        rank = np.empty(len(counts.number), dtype=np.int64)
        by_rank = np.lexsort((counts.group, counts.number))
        rank[by_rank] = np.arange(len(rank))
        ordered = np.sort(member[kept] * len(rank) + rank[counts.index[kept]])
        member, element = np.divmod(ordered, max(1, len(rank)))
        element = by_rank[element]
        weight = counts.weight[element]
        ends = np.searchsorted(member, np.arange(len(sizes)), side="right")
        before = np.cumsum(weight) - weight
        before -= before[np.searchsorted(member, member)] if len(member) else 0
        parts = _Parts(groups.row[member], element, weight, rank, ends[member], before <= budget[member])
        yield from self._children(parts, shared[counts.group] + counts.weight)

    def _children(self, parts: _Parts, shared: Ints) -> Iterator[_Groups]:
        """Makes a group of the members that share an element; joins the pairs of small groups."""
        places = np.flatnonzero(parts.first)
        places = places[np.argsort(parts.rank[parts.element[places]], kind="stable")]
        places = places[self._undecided(parts.element[places], parts.row[places])]
        if not len(places):
            return
        starts = np.flatnonzero(np.diff(parts.element[places], prepend=-1))
        sizes = np.diff(starts, append=len(places))
        small = np.repeat(sizes <= LEAF, sizes)
        self._join_all(parts.element[places[small]], parts.row[places[small]])
        places = places[~small]
        places = places[self._undecided(parts.element[places], parts.row[places])]
        while len(places):
            lengths = parts.end[places] - places - 1
            child = parts.element[places]
            size = np.searchsorted(np.cumsum(lengths), GROUP_ELEMENTS) + 1
            size = len(places) if size >= len(places) else int(np.flatnonzero(child == child[size - 1])[-1]) + 1
            now, length, places = places[:size], lengths[:size], places[size:]
            elements = np.repeat(now + 1 - np.cumsum(length) + length, length) + np.arange(length.sum())
            group = np.cumsum(np.diff(child[:size], prepend=child[0]) != 0)
            heads = np.flatnonzero(np.diff(group, prepend=-1))
            yield _Groups(
                group, parts.row[now], length, parts.element[elements], parts.weight[elements],
                shared[child[:size][heads]],
            )  # fmt: skip
            places = places[self._undecided(parts.element[places], parts.row[places])]

    def _undecided(self, child: Ints, row: Ints) -> NDArray[np.bool_]:
        """Returns which members are in a group with rows of several components; `child` has equal numbers together."""
        if not len(child):
            return np.zeros(0, dtype=bool)
        labels = self.components.labels[self.names[row]]
        starts = np.flatnonzero(np.diff(child, prepend=-1))
        mixed = np.maximum.reduceat(labels, starts) != np.minimum.reduceat(labels, starts)
        return np.repeat(mixed, np.diff(starts, append=len(child)))

    def _join_all(self, child: Ints, row: Ints) -> None:
        """Joins the similar ones among all pairs of members with the same `child`."""
        pairs = [np.flatnonzero(child[step:] == child[:-step]) for step in range(1, LEAF)]
        self._join(
            np.concatenate([row[at] for at in pairs]),
            np.concatenate([row[at + step] for step, at in enumerate(pairs, start=1)]),
        )


@dataclass
class _Parts:
    """Holds the elements of all members in the order of their frequency, member after member; each array is `[T]`."""

    row: Ints
    element: Ints  # position in _Counts
    weight: Ints
    rank: Ints  # [E] order of the elements of _Counts
    end: Ints  # end of the member's elements
    first: NDArray[np.bool_]  # whether the elements before may all be missed: a similar set shares one of these


@dataclass
class _Counts:
    """Holds the distinct elements of each group."""

    index: Ints  # [T] element of each entry
    group: Ints  # [E]
    number: Ints  # [E] members that have it
    weight: Ints  # [E] where `first`, of all elements with the same members
    common: NDArray[np.bool_]  # [E] whether all members have it
    first: NDArray[np.bool_]  # [E] whether it stands for those with the same members: several, but not all


def _count(groups: _Groups, member: Ints, random: np.random.Generator) -> _Counts:
    elements = int(groups.element.max(initial=0)) + 1
    keys = groups.group[member] * elements + groups.element
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    number = np.diff(starts, append=len(keys))
    index = np.empty(len(keys), dtype=np.int64)
    index[order] = np.repeat(np.arange(len(starts)), number)
    group, weight = keys[order[starts]] // elements, groups.weight[order[starts]]
    common = number == np.bincount(groups.group)[group]

    # Elements with the same members have the same sum of random numbers of 64 bits.
    marks = random.integers(2**64, size=len(groups.row), dtype=np.uint64)
    sums = np.add.reduceat(marks[member[order]], starts) if len(starts) else marks[:0]
    several = np.flatnonzero(~common & (number > 1))
    _, heads, same = np.unique(sums[several], return_index=True, return_inverse=True)
    first = np.zeros(len(starts), dtype=bool)
    first[several[heads]] = True
    weight = weight.copy()
    weight[several[heads]] = np.bincount(same, weight[several])
    return _Counts(index, group, number, weight, common, first)


def _ceil(values: NDArray[np.float64]) -> Ints:
    return np.ceil(values - 1e-9).astype(np.int64)  # 0.85 * 20 is 17, not a little more
