"""Related rows stay on one side of the splits: rows of a group, copies of a text."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from datasets import concatenate_datasets

from hfssl.data.audit import audit
from hfssl.data.duplicates import exact_key, near_duplicate_components
from hfssl.data.splits import few_label_splits
from tests.helpers.refusals import refusal
from tests.helpers.split_tables import HELD_OUT, ids, random_table, sentence, table

# Groups


def sides(splits):
    """Which sides each group stands on; training is one side."""
    found: dict[str, set[str]] = {}
    for part, rows in splits.items():
        for group in rows["group"]:
            if group:
                found.setdefault(group, set()).add(part if part in HELD_OUT else "training")
    return found


def test_rows_of_a_group_stay_on_one_side():
    for seed in range(3):
        data = random_table(seed, rows=300, unlabeled=0.3, groups=50)
        for budget in (None, 5, 12):
            splits = few_label_splits(data, labels_per_class=budget, seed=seed)
            assert all(len(stands) == 1 for stands in sides(splits).values())
            # With every label kept, no group is without labels, so that none can be set apart as proxy.
            empty = {part for part in splits if not len(splits[part])}
            assert empty - {"proxy"} == {None: {"test"}, 5: {"validation"}, 12: set()}[budget]
            assert ("proxy" in empty) == any("no proxy part" in w for w in splits.manifest["warnings"])
            assert budget is None or "proxy" not in empty
            if budget is None:
                assert np.isclose(len(splits["validation"]) / len(splits["labeled"]), 0.25, atol=0.1)


def test_rows_without_a_group_are_free():
    data = random_table(0, rows=300, groups=40)
    loose = data.remove_columns("group").add_column("group", [""] * 300)
    splits = few_label_splits(loose, labels_per_class=10)
    assert sum(map(len, splits.values())) == 300


def test_groups_can_be_ignored():
    splits = few_label_splits(random_table(0, rows=300, groups=20), labels_per_class=10, group=False)
    assert any(len(stands) > 1 for stands in sides(splits).values())
    assert sum(map(len, splits.values())) == 300


def test_groups_of_given_parts_leave_training():
    generator = np.random.default_rng(0)
    train = table([sentence(generator) for _ in range(40)], [0, 1] * 20, "ab", group=["x", "x", "y", "y"] * 10)
    test = table([sentence(generator)], [0], "ab", group=["x"])
    splits = few_label_splits(train, test=test)
    assert {group for part in ("labeled", "validation") for group in splits[part]["group"]} == {"y"}
    assert splits.manifest["removed"] == {"group_of_test": 20}


# Duplicates


def with_copies(seed, groups=None):
    """A table where every fourth text has an exact copy or a near one elsewhere, often in another group."""
    data = random_table(seed, rows=240, unlabeled=0.3, groups=groups)
    generator = np.random.default_rng([seed, 1])
    texts, labels = list(data["text"]), list(data["label"])
    for row in range(0, 240, 4):
        copy = int(generator.integers(240)) // 4 * 4 + 1
        texts[copy] = generator.choice([f"  {texts[row].upper()} !", texts[row] + " s", texts[row]])
        labels[copy] = generator.choice([labels[row], -1])
    columns = {"group": list(data["group"])} if groups else {}
    return table(texts, labels, **columns)


@pytest.mark.parametrize("groups", [None, 40])
def test_no_duplicate_of_a_held_out_row_is_trained_on(groups):
    for seed in range(4):
        data = with_copies(seed, groups)
        for budget in (None, 6, 12):
            splits = few_label_splits(data, labels_per_class=budget, seed=seed)
            texts = [text for part in splits.values() for text in part["text"]]
            side = [
                part if part in HELD_OUT else "training" for part, rows in splits.items() for _ in range(len(rows))
            ]
            stands: dict[int, set[str]] = {}
            for component, where in zip(near_duplicate_components(texts), side, strict=True):
                stands.setdefault(component, set()).add(where)
            assert all(len(where) == 1 for where in stands.values())
            keys = Counter(exact_key(text) for part in ("labeled", "unlabeled") for text in splits[part]["text"])
            assert max(keys.values()) == 1
            assert audit([splits.manifest]).clean
            assert sum(map(len, splits.values())) + sum(splits.manifest["removed"].values()) == len(data)


def test_a_labeled_copy_wins_and_conflicts_are_reported():
    generator = np.random.default_rng(0)
    texts = [sentence(generator) for _ in range(20)]
    data = table(
        [*texts, texts[0], texts[1].upper(), texts[2], texts[2], ""],
        [-1, *[0, 1] * 9, 1, 0, 1, 0, 0, 0],
        names="ab",
    )
    splits = few_label_splits(data)
    labels = dict(zip(splits["labeled"]["id"], splits["labeled"]["label"], strict=True))
    assert labels["20"] == 0  # the labeled copy of the unlabeled row 0
    assert "0" not in ids(splits, *splits)
    assert labels["1"] == 0  # one vote each for 0 (row 1) and 1 (row 21): the first stays
    assert labels["22"] == 0  # two votes to one against row 2
    assert splits.manifest["removed"] == {"empty_text": 1, "exact_duplicate": 4}
    warnings = " ".join(splits.manifest["warnings"])
    assert "2 texts occur with different labels, for example in the rows 1 ('a') and 21 ('b')" in warnings
    assert "1 training rows have an empty text" in warnings


def test_copies_of_test_rows_leave_training_and_validation():
    data = random_table(0, rows=60, class_prior=(0.5, 0.5, 0.0))
    test = table([data["text"][0].upper(), data["text"][1] + " s"], [0, 1])
    validation = table([data["text"][0], data["text"][2], data["text"][3]], [0, 1, 0])
    splits = few_label_splits(data, test=test, validation=validation)
    assert splits["test"]["id"] == ["0", "1"]
    assert splits["validation"]["id"] == ["1", "2"]
    assert not {"0", "1", "2", "3"} & ids(splits, "labeled")
    assert splits.manifest["removed"] == {"duplicate_of_test": 3, "duplicate_of_validation": 2}


def test_losing_much_of_the_training_table_is_a_warning():
    data = random_table(0, rows=60, class_prior=(0.5, 0.5, 0.0))
    splits = few_label_splits(data, test=data.select(range(20)))
    assert any("20 rows were left out because they repeat held-out rows" in w for w in splits.manifest["warnings"])


def test_second_texts_are_part_of_what_is_compared():
    generator = np.random.default_rng(0)
    firsts = [sentence(generator)] * 40
    seconds = [sentence(generator) for _ in range(40)]
    data = table(firsts, [0, 1] * 20, "ab", text_pair=seconds)
    splits = few_label_splits(data)
    assert sum(map(len, splits.values())) == 40
    assert splits["labeled"]["text_pair"][0] in seconds
    message = refusal(few_label_splits, data, test=data.remove_columns("text_pair"))
    assert "a second text in all tables or in none" in message


def test_a_table_of_few_different_texts_is_a_warning():
    data = random_table(0, rows=60, class_prior=(0.5, 0.5, 0.0))
    splits = few_label_splits(concatenate_datasets([data, data.select(range(20))]))
    assert splits.manifest["removed"]["exact_duplicate"] == 20
    assert any("20 training rows repeat another one's text" in w for w in splits.manifest["warnings"])
