"""Class-balanced selection: quotas, probabilities, no repetition, reproducibility."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from hfssl.functional.selection import (
    ACQUISITIONS,
    SELECTION_STRATEGIES,
    Candidates,
    class_balanced_selection,
    quotas,
    select_easy,
    select_hard,
    select_threshold,
    select_top_k,
)

BALANCED = ("easy", "hard", "uniform", "top_k")


def pool(predicted, bald=None, confidence=None, num_classes=3) -> Candidates:
    predicted = np.asarray(predicted)
    bald = np.zeros(len(predicted)) if bald is None else np.asarray(bald, dtype=float)
    confidence = np.ones(len(predicted)) if confidence is None else np.asarray(confidence, dtype=float)
    return Candidates(predicted, confidence, bald, num_classes)  # uncertainty is BALD here


def test_quotas_sum_to_the_size():
    assert quotas(9, 3).tolist() == [3, 3, 3]
    assert quotas(8, 3).tolist() == [3, 3, 2]
    assert quotas(1, 3).tolist() == [1, 0, 0]


@pytest.mark.parametrize("name", BALANCED)
def test_each_class_gives_its_share_and_no_row_comes_twice(name):
    candidates = pool(np.repeat([0, 1, 2], [50, 30, 20]), bald=np.full(100, 0.5))
    rows = SELECTION_STRATEGIES[name](candidates, 30, np.random.default_rng(0))
    assert np.bincount(candidates.predicted[rows]).tolist() == [10, 10, 10]
    assert len(set(rows.tolist())) == len(rows) == 30


@pytest.mark.parametrize("name", BALANCED)
def test_a_class_that_is_short_gives_what_it_has_and_nobody_steps_in(name):
    candidates = pool(np.repeat([0, 2], [50, 4]))  # nothing was predicted as class 1
    rows = SELECTION_STRATEGIES[name](candidates, 30, np.random.default_rng(0))
    assert np.bincount(candidates.predicted[rows], minlength=3).tolist() == [10, 0, 4]


@pytest.mark.parametrize("name", SELECTION_STRATEGIES)
def test_an_empty_pool_gives_no_rows(name):
    assert SELECTION_STRATEGIES[name](pool([]), 30, np.random.default_rng(0)).tolist() == []


@pytest.mark.parametrize("name", SELECTION_STRATEGIES)
def test_the_same_generator_state_gives_the_same_rows_and_the_global_one_is_untouched(name):
    setup = np.random.default_rng(3)
    candidates = pool(setup.integers(0, 3, 200), bald=setup.random(200), confidence=setup.random(200))
    before = np.random.get_state()[1].copy()
    first = SELECTION_STRATEGIES[name](candidates, 30, np.random.default_rng(5))
    assert np.array_equal(first, SELECTION_STRATEGIES[name](candidates, 30, np.random.default_rng(5)))
    assert np.array_equal(before, np.random.get_state()[1])
    if name in ("easy", "hard", "uniform"):
        assert not np.array_equal(first, SELECTION_STRATEGIES[name](candidates, 30, np.random.default_rng(6)))


def test_easy_leaves_rows_of_a_nat_or_more_to_the_last_and_hard_those_of_zero():
    bald = np.array([1.5, 1.0, 0.2, 0.3, 0.0, 0.9])
    candidates = pool(np.zeros(6, dtype=int), bald=bald, num_classes=1)
    for seed in range(50):
        assert select_easy(candidates, 4, np.random.default_rng(seed)).tolist() == [2, 3, 4, 5]
        assert select_hard(candidates, 5, np.random.default_rng(seed)).tolist() == [0, 1, 2, 3, 5]
    assert select_easy(candidates, 5, np.random.default_rng(0)).shape == (5,)  # then one of the rows of chance 0


def test_chances_are_proportional_to_the_probability():
    candidates = pool([0, 0, 0], num_classes=1)
    probability = np.array([0.6, 0.3, 0.1])
    generator, trials = np.random.default_rng(0), 4000
    counts = np.zeros(3)
    for _ in range(trials):
        counts[class_balanced_selection(candidates, probability, 1, generator)] += 1
    deviation = np.sqrt(probability * (1 - probability) / trials)
    assert np.all(np.abs(counts / trials - probability) < 4 * deviation)


def test_top_k_takes_the_most_confident_and_breaks_ties_at_random():
    candidates = pool([0, 0, 0, 1, 1], confidence=[0.5, 0.9, 0.7, 0.6, 0.8], num_classes=2)
    assert select_top_k(candidates, 2, np.random.default_rng(0)).tolist() == [1, 4]
    tied = pool([0] * 10, num_classes=1)
    assert len({select_top_k(tied, 1, np.random.default_rng(seed)).item() for seed in range(30)}) > 3


def test_threshold_and_all_are_neither_balanced_nor_bounded():
    candidates = pool([0, 0, 0, 1, 1], confidence=[0.95, 0.9, 0.97, 0.6, 0.99], num_classes=2)
    generator = np.random.default_rng(0)
    assert SELECTION_STRATEGIES["threshold"](candidates, 1, generator).tolist() == [0, 2, 4]
    assert partial(select_threshold, threshold=0.6)(candidates, 1, generator).tolist() == [0, 1, 2, 3, 4]
    assert SELECTION_STRATEGIES["all"](candidates, 1, generator).tolist() == [0, 1, 2, 3, 4]


def test_one_minus_bald_is_cut_at_zero_where_bald_passes_one_nat():
    # With K = 4 BALD reaches log 4 = 1.386 nats; a negative chance would be an error or, worse, wrap around.
    candidates = pool([0, 0], bald=[math.log(4), 0.5], num_classes=1)
    assert all(select_easy(candidates, 1, np.random.default_rng(seed)).tolist() == [1] for seed in range(20))


def test_acquisitions_by_hand():
    probs = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    variance, bald = np.array([0.25, 0.0, 0.1]), np.array([1.2, 0.0, 0.3])
    entropy = (0.5 * math.log(2) - 0.3 * math.log(0.3) - 0.2 * math.log(0.2)) / math.log(3)
    expected = {
        "bald": [1.2, 0, 0.3],
        "entropy": [entropy, 0, 1],
        "variance": [1, 0, 0.4],
        "margin": [0.8, 0, 1],  # 1 - (0.5 - 0.3)
    }
    assert set(ACQUISITIONS) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(ACQUISITIONS[name](probs, variance, bald), values, atol=1e-12)
