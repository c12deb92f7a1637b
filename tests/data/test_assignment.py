"""Rows to parts: nested over label budgets, related rows on one side, a random proxy."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from hfssl.data.assignment import MAIN, ROLES, RowTable, SplitOptions, assign_roles


def random_rows(seed, grouped):
    """Arrays as `few_label_splits` makes them: some unlabeled rows, some exact and some linked near duplicates."""
    generator = np.random.default_rng([seed, 2])
    size = 300
    label = np.where(generator.random(size) < 0.1, -1, generator.choice(3, size, p=(0.5, 0.3, 0.2)))
    near = np.where(generator.random(size) < 0.15, generator.integers(size, size=size), np.arange(size))
    near = near[near]
    exact = np.where(generator.random(size) < 0.5, near, np.arange(size))
    unit = size + generator.integers(60, size=size) if grouped else near
    return RowTable(label, np.full(size, MAIN), exact, near, unit, "abc")


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.3])
@pytest.mark.parametrize("grouped", [False, True])
def test_nested_across_label_budgets(grouped, fraction):
    # With n rows of a class one would be held out, and with n + 1 two, of which the first is the last of the n.
    alone = {0.0: None, 0.2: 9, 0.3: 6}[fraction]
    for seed in range(60 if fraction == 0.2 else 10):
        rows = random_rows(seed, grouped)
        options = {k: SplitOptions(k, 0.2, fraction, 0.1, None, None, seed) for k in range(1, 21)}
        roles = {k: assign_roles(rows, given).role for k, given in options.items()}
        of = {k: {part: set(np.flatnonzero(role == n)) for n, part in enumerate(ROLES)} for k, role in roles.items()}
        for small, large in combinations(of, 2):
            a, b = of[small], of[large]
            assert a["labeled"] | a["validation"] < b["labeled"] | b["validation"]
            if small != alone:  # nine of nine rows are labeled, but eight of ten: see assignment.py
                assert a["labeled"] <= b["labeled"]
                assert not a["labeled"] & b["validation"]  # never trained on here and held out there
            assert a["validation"] <= b["validation"]
            assert a["test"] == b["test"]
        assert [len(of[k]["labeled"]) for k in (8, 10)] == {0.0: [24, 30], 0.2: [24, 24], 0.3: [18, 21]}[fraction]
        assert len(of[10]["validation"]) == round(30 * fraction)
        if not grouped:  # a group that a larger budget labels a row of cannot stay proxy
            assert len(of[1]["proxy"] & of[20]["proxy"]) >= (0.6 if fraction else 0.5) * len(of[20]["proxy"])


@pytest.mark.parametrize("grouped", [False, True])
def test_units_and_duplicates_stay_on_one_side(grouped):
    for seed in range(60):
        rows = random_rows(seed, grouped)
        for budget in (None, 5, 12):
            role = assign_roles(rows, SplitOptions(budget, 0.2, 0.2, 0.1, 100, 40, seed)).role
            side = np.where(np.isin(role, (ROLES.index("labeled"), ROLES.index("unlabeled"))), 99, role)
            for number in (rows.unit, rows.near):
                kept = role >= 0
                assert len(set(zip(number[kept], side[kept], strict=True))) == len(set(number[kept]))
            training = rows.exact[side == 99]
            assert len(training) == len(set(training))


def test_proxy_is_a_random_part_of_the_pool():
    rows = random_rows(0, grouped=False)
    drawn = sum(
        assign_roles(rows, SplitOptions(5, 0.0, 0.2, 0.1, None, None, s)).role == ROLES.index("proxy")
        for s in range(400)
    )
    # A row in the pool is drawn with a probability of about 0.1: 40 of 400 times, standard deviation 6. Rows that have
    # near duplicates are not drawn more often than others.
    assert max(drawn) < 70
    single = np.bincount(rows.near, minlength=300)[rows.near] == 1
    assert min(drawn[single]) > 14
    assert np.mean(drawn[~single]) < 1.2 * np.mean(drawn[single])
