"""Exact and near duplicates: texts that count as the same, and texts that must not."""

from __future__ import annotations

import re
import time
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
    expected = components_by_brute_force(texts)
    assert 5 < len(texts) - len(set(expected)) < 40
    assert near_duplicate_components(texts).tolist() == expected


def templated(generator, count):
    """Texts of one template with several slots: similarities of all kinds around the threshold."""
    names, goods = ["Anna", "Bernd", "Carla", "Dieter"], ["lamp", "phone", "printer"]
    return [
        f"Dear team, {names[generator.integers(4)]} writes about invoice {generator.integers(1000)}: the amount of "
        f"{generator.integers(10, 99)} EUR for the {goods[generator.integers(3)]} was charged twice, please refund it"
        + ", thank you and kind regards"
        * int(generator.integers(2))
        for _ in range(count)
    ]


def five_grams(text):
    """The 5-grams of a text of small letters, digits and punctuation, as sets of strings."""
    padded = f" {' '.join(re.sub('[^a-z0-9]', ' ', text.lower()).split())} "
    return {padded[i : i + 5] for i in range(len(padded) - 4)}


def components_by_brute_force(*columns):
    """Smallest row of each component, from all pairs of rows whose texts are alike in every column."""
    sets = [[five_grams(text) for text in column] for column in columns]
    expected = np.arange(len(columns[0]))
    for i, j in combinations(range(len(expected)), 2):
        alike = [len(each[i] & each[j]) / len(each[i] | each[j]) for each in sets]
        if min(alike) >= NEAR_DUPLICATE_THRESHOLD:
            low, high = sorted([expected[i], expected[j]])
            expected[expected == high] = low
    return expected.tolist()


def test_texts_of_one_template_are_joined_as_by_brute_force():
    texts = list(dict.fromkeys(templated(np.random.default_rng(0), 400)))
    expected = components_by_brute_force(texts)
    assert 50 < len(set(expected)) < 380
    assert near_duplicate_components(texts).tolist() == expected


def test_pairs_of_templates_are_joined_as_by_brute_force():
    generator = np.random.default_rng(1)
    texts, pairs = templated(generator, 60), templated(generator, 60)
    texts[30:], pairs[30:50] = texts[:30], [text + " s" for text in pairs[:20]]
    expected = components_by_brute_force(texts, pairs)
    assert 20 < len(set(expected)) < 60
    assert near_duplicate_components(texts, pairs).tolist() == expected


def test_the_time_for_templates_grows_with_their_number():
    generator = np.random.default_rng(2)
    texts = templated(generator, 8000)

    def seconds(count):
        before = time.process_time()
        near_duplicate_components(texts[:count])
        return time.process_time() - before

    seconds(100)  # loads what is loaded once
    assert seconds(8000) < 20 * seconds(1000)  # a comparison of all pairs takes 64 times as long


@pytest.mark.shared_data
def test_no_two_short_definition_questions_of_trec_are_duplicates():
    if not TREC.exists():
        pytest.skip("needs ../shared/data/trec6")
    texts = {exact_key(t): t for t in pq.read_table(TREC)["text"].to_pylist()}
    short = [t for t in texts.values() if re.fullmatch(r"What (is|are) \w+ \?", t)]
    assert len(short) > 50
    assert len(set(near_duplicate_components(short).tolist())) == len(short)
