"""Exact and near duplicates: texts that count as the same, and texts that must not."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pyarrow.parquet as pq
import pytest

from hfssl.data.duplicates import NEAR_DUPLICATE_THRESHOLD, exact_key, near_duplicate_components, similarity
from tests.helpers import ROOT

TREC = ROOT / ".." / "shared" / "data" / "trec6" / "train.parquet"


def words(generator, count):
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return [" ".join("".join(generator.choice(letters, 6)) for _ in range(20)) for _ in range(count)]


def test_exact_key_ignores_case_width_and_spacing_but_not_punctuation():
    assert exact_key("Who  won ?") == exact_key("who won?\n") == exact_key("\uff37ho won ?")
    assert exact_key("good :)") != exact_key("good :(")
    assert exact_key(" \n") == ""


def test_the_second_text_counts():
    assert exact_key("a", "b") != exact_key("a", "c")
    assert exact_key("a b", "c") != exact_key("a", "b c")
    assert exact_key("a\x1fb") != exact_key("a", "b")  # the separator cannot be forged by a text


def test_similarity_by_hand():
    # " abcdef " has the 5-grams " abcd", "abcde", "bcdef", "cdef "; " abcdeg " shares the first two of its four.
    assert similarity("abcdef", "ABCDEF!") == 1.0
    assert similarity("abcdef", "abcdeg") == 2 / 6


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("What is pH ?", "What is pi ?"),
        ("What is the capital of Chad ?", "What is the capital of Cuba ?"),
        ("What is the population of Mexico ?", "What is the population of Kansas ?"),
        ("Who was the 16th president of the United States ?", "Who was the 3rd president of the United States ?"),
        ("\u4f60\u597d\u5417\u6211\u7684\u670b\u53cb", "\u4f60\u597d\u5417\u6211\u7684\u5bb6\u4eba"),
    ],
)
def test_questions_of_one_pattern_are_not_duplicates(a, b):
    assert similarity(a, b) < NEAR_DUPLICATE_THRESHOLD
    assert near_duplicate_components([a, b]).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("What city or state do the most people live in ?", "In what city or state do the most people live in ?"),
        ("More stylish and cerebral - and, hence, chilling.", "more stylish and cerebral--and hence chilling"),
        ("Please check my card, as the withdrawal failed.", "Please check my card as the withdrawal failed!!!"),
        (
            "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
            "\u0928\u092e\u0938\u094d\u0924\u0947, \u0926\u0941\u0928\u093f\u092f\u093e!",
        ),
    ],
)
def test_the_same_text_with_a_slip_is_a_duplicate(a, b):
    assert near_duplicate_components(["something else altogether", a, b]).tolist() == [0, 1, 1]


def test_emoji_only_texts_and_empty_texts():
    assert near_duplicate_components(["\U0001f600", "\U0001f621", "", " ", "\U0001f600"]).tolist() == [0, 1, 2, 3, 0]


def test_pairs_need_both_texts_alike():
    premise = "A man in a blue shirt is playing the guitar on a small stage at night"
    firsts = [premise, premise, premise + " outside"]
    seconds = ["He sleeps in his bed.", "A person makes music.", "A person makes music!"]
    assert near_duplicate_components(firsts, seconds).tolist() == [0, 1, 1]


def test_finds_exactly_the_pairs_that_brute_force_finds():
    generator = np.random.default_rng(0)
    texts = words(generator, 60)
    for text in texts[:40]:  # copies with one to eight changed letters: similarities on both sides of the threshold
        letters = list(text)
        for position in generator.choice(len(letters), generator.integers(1, 9), replace=False):
            letters[position] = "z"
        texts.append("".join(letters))
    expected = np.arange(len(texts))
    for i, j in combinations(range(len(texts)), 2):
        if similarity(texts[i], texts[j]) >= NEAR_DUPLICATE_THRESHOLD:
            expected[expected == expected[j]] = expected[i]
    assert 5 < len(texts) - len(set(expected.tolist())) < 40
    assert near_duplicate_components(texts).tolist() == expected.tolist()


@pytest.mark.shared_data
def test_no_two_short_definition_questions_of_trec_are_duplicates():
    if not TREC.exists():
        pytest.skip("needs ../shared/data/trec6")
    texts = {exact_key(t): t for t in pq.read_table(TREC)["text"].to_pylist()}
    short = [t for t in texts.values() if re.fullmatch(r"What (is|are) \w+ \?", t)]
    assert len(short) > 50
    assert len(set(near_duplicate_components(short).tolist())) == len(short)
