"""Assigns rows to parts, with arrays of integers only: no texts, no tables.

Rows stay together in *units*: a group (one film's reviews) or, without groups, a component of near duplicates. All
rows of a unit are on one side: test, validation, proxy, or training. With groups, a near duplicate may be in another
group; then the copy on the training side is left out.

Random choices are made in an order that does not depend on `labels_per_class`, each with its own generator, so that a
larger label budget contains the smaller ones:

* `test` does not depend on the budget at all;
* the rows with visible labels (`labeled` and `validation`) at K per class are a subset of those at any larger K;
* with ten classes or more `labeled` and `validation` each grow with K;
* with fewer classes and a fifth for `validation`, they grow from K = 10 on, and `labeled` at K <= 8 is part of every
  larger one. (At 9 all nine rows per class are labeled, at 10 two of ten go to `validation`: no scheme can nest
  `labeled` there.)
* `proxy` loses only the rows (with groups: the groups) that a larger budget labels.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hfssl.data.label_column import UNLABELED
from hfssl.errors import DataError

__all__ = ["Assignment", "RowTable", "SplitOptions", "assign_roles"]

MAIN, EXTRA, VALIDATION_TABLE, TEST_TABLE = range(4)  # source table of a row
ROLES = ("labeled", "unlabeled", "validation", "proxy", "test")
LABELED, POOL, VALIDATION, PROXY, TEST = range(5)
FREE, REMOVED = -1, -2
TABLE_OF_ROLE = {VALIDATION: VALIDATION_TABLE, TEST: TEST_TABLE}
STREAMS = ("test", "test_cap", "sides", "labels", "proxy", "pool")
MIN_VALIDATION_A_CLASS = 2  # rows of every class
MIN_VALIDATION = 10  # ... or rows in all
NOMINAL = 0.2  # share of validation rows where none was asked for
ROUNDING = 1e-9
LABELED_SIDE, VALIDATION_SIDE, BLOCKED = range(3)

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SplitOptions:
    """Holds the options of `few_label_splits`."""

    labels_per_class: int | None
    test_fraction: float
    validation_fraction: float
    proxy_fraction: float
    max_unlabeled: int | None
    max_test: int | None
    seed: int


@dataclass(frozen=True)
class RowTable:
    """Holds all rows of all given tables, one after the other.

    Args:
        label (`Ints`): `[N]` stratum (the class, where a row has one), -1 = unlabeled.
        source (`Ints`): `[N]` `MAIN`, `EXTRA` (the unlabeled table), `VALIDATION_TABLE` or `TEST_TABLE`.
        exact (`Ints`): `[N]` number shared by rows with the same normalised text, -1 = no text.
        near (`Ints`): `[N]` number shared by rows that are linked by near duplicates.
        unit (`Ints`): `[N]` number shared by rows that must stay on one side.
        label_names (`Sequence[str]`): `[K]` names of the strata.
    """

    label: Ints
    source: Ints
    exact: Ints
    near: Ints
    unit: Ints
    label_names: Sequence[str]


@dataclass
class Assignment:
    """Holds the part of each row, and the reasons why rows are left out.

    Args:
        role (`Ints`): `[N]` position in `ROLES`; -2 = in no part.
        removed (`Counter[str]`): Number of rows left out, by reason.
        conflicts (`list[list[int]]`): Groups of row numbers with the same text and different labels.
    """

    role: Ints
    removed: Counter[str] = field(default_factory=Counter)
    conflicts: list[list[int]] = field(default_factory=list)

    def remove(self, rows: Ints, reason: str) -> None:
        self.role[rows] = REMOVED
        if len(rows):
            self.removed[reason] += len(rows)


def assign_roles(rows: RowTable, options: SplitOptions) -> Assignment:
    """Assigns each row to its part.

    Raises:
        DataError: if a class has fewer labeled rows than requested.
    """
    result = Assignment(np.full(len(rows.label), FREE, dtype=np.int64))
    _place_given_parts(rows, options, result)
    _collapse_duplicates(rows, result)
    remove_neighbours(rows, result, TEST)
    remove_neighbours(rows, result, VALIDATION)
    if options.labels_per_class is not None and options.test_fraction > 0 and not np.any(rows.source == TEST_TABLE):
        _cut_test(rows, options, result)
        remove_neighbours(rows, result, TEST)
    _place_labels(rows, options, result)
    remove_neighbours(rows, result, VALIDATION)
    _place_pool(rows, options, result)
    return result


def _place_given_parts(rows: RowTable, options: SplitOptions, result: Assignment) -> None:
    for source, role in ((TEST_TABLE, TEST), (VALIDATION_TABLE, VALIDATION)):
        given = np.flatnonzero(rows.source == source)
        result.role[given] = role
        result.remove(given[rows.label[given] == UNLABELED], f"{ROLES[role]}_row_without_label")
    _cap_test(rows, options, result)
    near_test = np.isin(rows.near, rows.near[rows.source == TEST_TABLE])
    same_unit = np.isin(rows.unit, rows.unit[rows.source == TEST_TABLE])
    result.remove(np.flatnonzero((result.role == VALIDATION) & near_test), "duplicate_of_test")
    result.remove(np.flatnonzero((result.role == VALIDATION) & same_unit), "group_of_test")


def _cap_test(rows: RowTable, options: SplitOptions, result: Assignment) -> None:
    test = np.flatnonzero(result.role == TEST)
    if options.max_test is None or len(test) <= options.max_test:
        return
    order = _generator(options.seed, "test_cap").permutation(test)
    counts = np.bincount(rows.label[test], minlength=len(rows.label_names))
    shares = _apportioned(counts, options.max_test)
    kept = [order[rows.label[order] == c][:share] for c, share in enumerate(shares)]
    result.remove(np.setdiff1d(test, np.concatenate(kept)), "over_max_test")


def _collapse_duplicates(rows: RowTable, result: Assignment) -> None:
    """Collapses training rows of equal text to one: a labeled row with the most frequent label, else the first row."""
    training = np.flatnonzero(result.role == FREE)
    result.remove(training[rows.exact[training] < 0], "empty_text")
    training = training[rows.exact[training] >= 0]
    _, first, counts = np.unique(rows.exact[training], return_index=True, return_counts=True)
    repeated = set(rows.exact[training[first[counts > 1]]].tolist())
    copies: dict[int, list[int]] = {}
    for row in training[np.isin(rows.exact[training], list(repeated))].tolist():
        copies.setdefault(int(rows.exact[row]), []).append(row)
    for same in copies.values():
        labeled = [row for row in same if rows.source[row] == MAIN and rows.label[row] != UNLABELED]
        votes = Counter(int(rows.label[row]) for row in labeled)  # of equals most_common returns the first
        kept = next(r for r in labeled if rows.label[r] == votes.most_common(1)[0][0]) if labeled else same[0]
        if len(votes) > 1:
            result.conflicts.append(labeled)
        result.remove(np.array([row for row in same if row != kept]), "exact_duplicate")


def remove_neighbours(rows: RowTable, result: Assignment, role: int) -> None:
    """Removes duplicates and group mates of a held-out part from the training side."""
    held_out = (result.role == role) | (rows.source == TABLE_OF_ROLE.get(role))  # includes rows that a cap left out
    free = result.role == FREE
    near = free & np.isin(rows.near, rows.near[held_out])
    grouped = free & ~near & np.isin(rows.unit, rows.unit[held_out])
    result.remove(np.flatnonzero(near), f"duplicate_of_{ROLES[role]}")
    result.remove(np.flatnonzero(grouped), f"group_of_{ROLES[role]}")


def _labelable(rows: RowTable, result: Assignment) -> Ints:
    """Returns training rows whose label may be visible. Labels in the extra, unlabeled table do not count."""
    return np.flatnonzero((result.role == FREE) & (rows.source == MAIN) & (rows.label != UNLABELED))


def _cut_test(rows: RowTable, options: SplitOptions, result: Assignment) -> None:
    candidates = _labelable(rows, result)
    counts = np.bincount(rows.label[candidates], minlength=len(rows.label_names))
    targets = np.clip(np.round(options.test_fraction * counts).astype(np.int64), 1, np.maximum(counts - 1, 0))
    if options.max_test is not None:
        targets = _apportioned(targets, options.max_test)
    order = _unit_by_unit(candidates, rows.unit, options.seed, "test")
    result.role[_pick_units(order, rows.label, rows.unit, targets)] = TEST
    _cap_test(rows, options, result)  # whole groups may exceed the targets


def _place_labels(rows: RowTable, options: SplitOptions, result: Assignment) -> None:
    candidates = _labelable(rows, result)
    side = _sides(rows, options, candidates, own_validation=not np.any(rows.source == VALIDATION_TABLE))
    visible = candidates
    if options.labels_per_class is not None:
        visible = _visible(rows, options, candidates, side)
    classes = np.unique(rows.label[visible])
    in_validation = visible[side[visible] == VALIDATION_SIDE]
    counts = np.bincount(rows.label[in_validation], minlength=len(rows.label_names))
    if options.validation_fraction and _suffices(counts[classes]):
        result.role[in_validation] = VALIDATION
        if options.labels_per_class is None:  # else they stay in the pool, unless a duplicate is in validation
            result.remove(visible[side[visible] == BLOCKED], "near_duplicate_across_groups")
    result.role[visible[result.role[visible] == FREE]] = LABELED


def _sides(rows: RowTable, options: SplitOptions, candidates: Ints, own_validation: bool) -> Ints:
    """Returns the side of each labelable row, `[N]`, for any label budget."""
    side = np.full(len(rows.label), LABELED_SIDE, dtype=np.int64)
    counts = np.bincount(rows.label[candidates], minlength=len(rows.label_names))
    targets = np.array([_share(int(count), _nominal(options)) for count in counts], dtype=np.int64)
    if not own_validation or not _suffices(targets[counts > 0]):
        return side
    order = _unit_by_unit(candidates, rows.unit, options.seed, "sides")
    chosen = _pick_units(order, rows.label, rows.unit, targets)
    side[chosen] = VALIDATION_SIDE
    others = candidates[side[candidates] == LABELED_SIDE]
    side[chosen[np.isin(rows.near[chosen], rows.near[others])]] = BLOCKED
    return side


def _suffices(counts: Ints) -> bool:
    """Returns whether these rows per class suffice for validation: two of each class, or ten in all.

    With the second condition, many classes or a rare one do not prevent a validation part of hundreds of labels.
    """
    if np.count_nonzero(counts) < 2:
        return False  # a model that always predicts one class would have a high accuracy on them
    return bool(np.all(counts >= MIN_VALIDATION_A_CLASS) or counts.sum() >= MIN_VALIDATION)


def _visible(rows: RowTable, options: SplitOptions, candidates: Ints, side: Ints) -> Ints:
    """Returns the rows with visible labels: the first `labels_per_class` of each class in a fixed random order."""
    budget = options.labels_per_class
    order = _generator(options.seed, "labels").permutation(candidates)
    classes = np.unique(rows.label[(rows.source == MAIN) & (rows.label != UNLABELED)])
    queues = {
        (c, s): deque(order[(rows.label[order] == c) & (side[order] == s)].tolist())
        for c in classes.tolist()
        for s in (LABELED_SIDE, VALIDATION_SIDE)
    }
    left = {c: sum(len(queues[c, s]) for s in (LABELED_SIDE, VALIDATION_SIDE)) for c in classes.tolist()}
    short = {c: count for c, count in left.items() if count < budget}
    if short:
        named = ", ".join(f"'{rows.label_names[c]}' has {count}" for c, count in sorted(short.items()))
        raise DataError(
            f"expected {budget} labeled rows in each class for labels_per_class={budget}, got fewer once test rows "
            f"and duplicates are set apart ({named}): ask for at most {min(short.values())}, or label more rows."
        )
    visible = []
    for c in classes.tolist():
        for position in range(budget):
            wanted = (
                VALIDATION_SIDE if _is_validation_position(position, len(classes), _nominal(options)) else LABELED_SIDE
            )
            queue = queues[c, wanted] or queues[c, LABELED_SIDE + VALIDATION_SIDE - wanted]
            visible.append(queue.popleft())
    return np.array(sorted(visible), dtype=np.int64)


def _nominal(options: SplitOptions) -> float:
    """Returns the share by which visible labels are chosen: without validation rows they are the same rows."""
    return options.validation_fraction or NOMINAL


def _is_validation_position(position: int, classes: int, fraction: float) -> bool:
    due = _share(position + 1, fraction) > _share(position, fraction)
    if classes >= MIN_VALIDATION:
        return due
    # With few classes, one validation row of each is too few, so the first comes just before the second.
    second = math.ceil(MIN_VALIDATION_A_CLASS / fraction - ROUNDING) - 1
    return position == second - 1 or (position >= second and due)


def _share(rows: int, fraction: float) -> int:
    """Returns the number of rows, rounded down; `ROUNDING` keeps 10 * 0.3 at 3."""
    return math.floor(rows * fraction + ROUNDING)


def _place_pool(rows: RowTable, options: SplitOptions, result: Assignment) -> None:
    pool = np.flatnonzero(result.role == FREE)
    size = len(pool) if options.max_unlabeled is None else min(len(pool), options.max_unlabeled)
    labeled = result.role == LABELED
    beside_labels = np.isin(rows.unit, rows.unit[labeled]) | np.isin(rows.near, rows.near[labeled])
    order = _unit_by_unit(pool[~beside_labels[pool]], rows.unit, options.seed, "proxy")
    result.role[_first_units(order, rows.unit, round(options.proxy_fraction * size))] = PROXY
    remove_neighbours(rows, result, PROXY)
    order = _generator(options.seed, "pool").permutation(len(rows.label))  # the same for each budget
    left = order[result.role[order] == FREE]
    kept = left[: size - int(np.sum(result.role == PROXY))]
    result.role[kept] = POOL
    result.remove(left[len(kept) :], "over_max_unlabeled")


def _unit_by_unit(chosen: Ints, unit: Ints, seed: int, stream: str) -> Ints:
    """Returns the selected rows in a random order of their units.

    Each unit has the same chance of an early place. In a random order of rows, units with many rows would come first
    and fill the held-out parts.
    """
    place = _generator(seed, stream).permutation(int(unit.max(initial=0)) + 1)
    return chosen[np.argsort(place[unit[chosen]], kind="stable")]


def _by_unit(order: Ints, unit: Ints) -> Iterable[list[int]]:
    """Yields the rows of `order` unit by unit, in the order in which the units first appear."""
    units: dict[int, list[int]] = {}
    for row, number in zip(order.tolist(), unit[order].tolist(), strict=True):
        units.setdefault(number, []).append(row)
    return units.values()


def _first_units(order: Ints, unit: Ints, size: int) -> Ints:
    """Returns the first `size` rows of whole units; skips a unit that would exceed `size` by more than `size` rows."""
    chosen: list[int] = []
    for members in _by_unit(order, unit):
        if len(chosen) >= size:
            break
        taken = members[: size - len(chosen)]
        if len(members) - len(taken) <= size:
            chosen += taken
    return np.array(chosen, dtype=np.int64)


def _pick_units(order: Ints, label: Ints, unit: Ints, targets: Ints) -> Ints:
    """Selects whole units, in order, that bring each class to its target or close to it.

    A unit is selected if it adds more wanted rows than unwanted ones and leaves each class at least one row. A class
    without any selected row then gets the unit that adds the fewest unwanted rows of other classes.
    """
    need = targets.copy()
    left = np.bincount(label[order], minlength=len(targets))
    chosen: list[int] = []

    def take(members: list[int], counts: Counter[int]) -> None:
        chosen.extend(members)
        for c, count in counts.items():
            need[c] -= count
            left[c] -= count

    def spares_each_class(counts: Counter[int]) -> bool:
        return all(count < left[c] for c, count in counts.items())

    passed_over: list[tuple[list[int], Counter[int]]] = []
    for members in _by_unit(order, unit):
        counts = Counter(label[members].tolist())
        wanted = sum(min(count, max(need[c], 0)) for c, count in counts.items())
        if 2 * wanted > len(members) and spares_each_class(counts):
            take(members, counts)
        elif wanted:
            passed_over.append((members, counts))
    for c in np.flatnonzero((targets > 0) & (need == targets)).tolist():
        fits = [pair for pair in passed_over if pair[1][c] and spares_each_class(pair[1])]
        if fits and need[c] == targets[c]:  # units of another class may have added some
            best = min(fits, key=lambda pair: len(pair[0]) - pair[1][c])
            passed_over.remove(best)
            take(*best)
    return np.array(chosen, dtype=np.int64)


def _generator(seed: int, stream: str) -> np.random.Generator:
    """Returns a separate generator for each random choice, so that the size of one does not change another."""
    return np.random.default_rng([seed, STREAMS.index(stream)])


def _apportioned(counts: Ints, total: int) -> Ints:
    """Scales counts down to about `total` in proportion; a class with rows gets at least one."""
    if counts.sum() <= total:
        return counts
    exact = counts * total / counts.sum()
    shares = np.floor(exact).astype(np.int64)
    for c in np.argsort(shares - exact, kind="stable")[: total - shares.sum()]:
        shares[c] += 1
    return np.maximum(shares, np.minimum(counts, 1))
