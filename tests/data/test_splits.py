"""The five parts: sizes, nesting, the manifest, and errors. Groups and copies are in `test_separation.py`."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from datasets import Dataset, load_from_disk

from hfssl.data.audit import audit
from hfssl.data.duplicates import exact_key
from hfssl.data.loading import load_table
from hfssl.data.splits import SemiSupervisedSplits, few_label_splits
from hfssl.errors import ConfigurationError, DamagedFile, DataError
from tests.helpers import ROOT
from tests.helpers.refusals import refusal
from tests.helpers.split_tables import HELD_OUT, ids, per_class, random_table, sentence, table

TREC = ROOT / ".." / "shared" / "data" / "trec6"
TREC_NAMES = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]

# What the parts are


def test_a_budget_is_spent_on_labeled_and_validation_rows():
    data = random_table(0, rows=400)
    splits = few_label_splits(data, labels_per_class=16, seed=3)
    assert list(splits) == ["labeled", "unlabeled", "validation", "proxy", "test"]
    assert per_class(splits["labeled"]) == dict.fromkeys(range(3), 13)
    assert per_class(splits["validation"]) == dict.fromkeys(range(3), 3)
    totals = per_class(data)
    assert per_class(splits["test"]) == {c: round(0.2 * n) for c, n in totals.items()}
    pool = len(data) - 48 - len(splits["test"])
    assert len(splits["proxy"]) == round(0.1 * pool)
    assert len(splits["unlabeled"]) == pool - len(splits["proxy"])


def test_the_parts_are_disjoint_and_complete_and_hide_the_labels():
    data = random_table(1, unlabeled=0.3)
    splits = few_label_splits(data, labels_per_class=12)
    every = [row for part in splits.values() for row in part["id"]]
    assert sorted(every) == sorted(map(str, range(len(data))))
    for part in ("unlabeled", "proxy"):
        assert set(splits[part]["label"]) == {-1}
        assert splits[part]["hidden_label"] == [data["label"][int(row)] for row in splits[part]["id"]]
    for part in ("labeled", "validation", "test"):
        assert splits[part]["label"] == [data["label"][int(row)] for row in splits[part]["id"]]
        assert "hidden_label" not in splits[part].column_names
    assert all(part.features["label"].names == ["a", "b", "c"] for part in splits.values())


def test_without_a_budget_labels_stay_and_nothing_is_cut_off_for_test():
    data = random_table(2, unlabeled=0.5)
    splits = few_label_splits(data)
    totals = per_class(data)
    assert len(splits["test"]) == 0
    assert splits["test"].features["label"].names == ["a", "b", "c"]
    assert per_class(splits["validation"]) == {c: totals[c] // 5 for c in range(3)}
    assert per_class(splits["labeled"]) == {c: totals[c] - totals[c] // 5 for c in range(3)}
    assert len(splits["unlabeled"]) + len(splits["proxy"]) == totals[-1]


@pytest.mark.parametrize(
    ("labels", "validation"),
    [
        ([10, 10], [2, 2]),
        ([10, 9], [0, 0]),  # 2 + 1: too few in one class, and too few in all
        ([40, 9], [0, 0]),  # 8 + 1
        ([45, 9], [9, 1]),  # ten in all: a rare class does not keep the others from being held out
        ([50, 12, 3], [10, 2, 0]),
        ([60, 4], [0, 0]),  # of one class only: a model that always says that one would be right
        ([5] * 9, [0] * 9),
        ([5] * 10, [1] * 10),
    ],
)
def test_validation_needs_two_rows_in_every_class_or_ten_in_all(labels, validation):
    generator = np.random.default_rng(0)
    rows = np.repeat(np.arange(len(labels)), labels).tolist()
    splits = few_label_splits(table([sentence(generator) for _ in rows], rows, names="abcdefghij"[: len(labels)]))
    held = per_class(splits["validation"])
    assert [held[c] for c in range(len(labels))] == validation
    assert [per_class(splits["labeled"])[c] + held[c] for c in range(len(labels))] == labels
    assert any("no validation part" in w for w in splits.manifest["warnings"]) == (not any(validation))


def test_no_labels_are_held_out_where_none_are_asked_for():
    data = random_table(0, rows=400)
    splits = few_label_splits(data, labels_per_class=16, seed=3, validation_fraction=0.0)
    assert per_class(splits["labeled"]) == dict.fromkeys(range(3), 16)
    assert len(splits["validation"]) == 0
    assert not any("validation" in warning for warning in splits.manifest["warnings"])  # it is as asked for
    held = few_label_splits(data, labels_per_class=16, seed=3)
    assert splits["test"]["id"][:] == held["test"]["id"][:]


def test_a_larger_share_is_held_out_where_it_is_asked_for():
    splits = few_label_splits(random_table(0, rows=400), labels_per_class=10, seed=3, validation_fraction=0.3)
    assert per_class(splits["labeled"]) == dict.fromkeys(range(3), 7)
    assert per_class(splits["validation"]) == dict.fromkeys(range(3), 3)
    few = few_label_splits(random_table(0, rows=400), labels_per_class=4, seed=3, validation_fraction=0.3)
    assert any("as 30% of the labels are too few rows" in warning for warning in few.manifest["warnings"])
    with pytest.raises(ConfigurationError, match=r"validation_fraction in \[0, 0.5\], got 0.6"):
        few_label_splits(random_table(0), labels_per_class=10, validation_fraction=0.6)


def test_given_parts_are_used_and_their_labels_are_matched_by_name():
    data = random_table(3)
    generator = np.random.default_rng(99)
    test = table([sentence(generator) for _ in range(6)], [0, 1, 2, 0, 1, -1], names=("c", "b", "a"))
    validation = table([sentence(generator) for _ in range(4)], [0, 0, 1, 1], names=("b", "a"))
    extra = table([sentence(generator) for _ in range(9)], [0, 1, 0] * 3, names=("c", "zebra"))
    splits = few_label_splits(data, labels_per_class=10, test=test, validation=validation, unlabeled=extra)
    assert splits["test"]["label"] == [2, 1, 0, 2, 1]
    assert splits.manifest["removed"] == {"test_row_without_label": 1}
    assert splits["validation"]["label"] == [1, 1, 0, 0]
    assert per_class(splits["labeled"]) == dict.fromkeys(range(3), 10)  # none are spent on validation
    pool = {
        row: label
        for part in ("unlabeled", "proxy")
        for row, label in zip(splits[part]["id"], splits[part]["hidden_label"], strict=True)
    }
    assert {row: label for row, label in pool.items() if row.startswith("unlabeled:")} == {
        f"unlabeled:{row}": (-1 if row % 3 == 1 else 2) for row in range(9)
    }


def test_caps():
    splits = few_label_splits(random_table(4, rows=400), labels_per_class=10, max_unlabeled=100, max_test=30)
    assert len(splits["proxy"]) == 10
    assert len(splits["unlabeled"]) == 90
    assert len(splits["test"]) == 30
    grouped = few_label_splits(random_table(5, rows=400, groups=30), labels_per_class=10, max_test=30)
    assert len(grouped["test"]) <= 30
    given = few_label_splits(random_table(6), test=random_table(7), max_test=31)
    assert 30 <= len(given["test"]) <= 31
    assert set(given["test"]["label"]) == {0, 1, 2}


# Seeds and nesting


def test_same_seed_same_parts_other_seed_other_parts():
    data = random_table(8)
    first, again, other = (few_label_splits(data, labels_per_class=10, seed=s) for s in (5, 5, 6))
    assert first.manifest == again.manifest
    assert ids(first, "labeled") != ids(other, "labeled")
    assert ids(first, "test") != ids(other, "test")


def test_ten_classes_hold_one_of_five_back_and_are_nested_without_exception():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 30).tolist()
    data = table([sentence(generator) for _ in labels], labels, names="abcdefghij")
    splits = {k: few_label_splits(data, labels_per_class=k) for k in range(1, 16)}
    for k, parts in splits.items():
        assert per_class(parts["validation"]) == (dict.fromkeys(range(10), k // 5) if k >= 5 else {})
        assert per_class(parts["labeled"]) == dict.fromkeys(range(10), k - k // 5)
    for small, large in combinations(splits.values(), 2):
        assert all(ids(small, part) <= ids(large, part) for part in ("labeled", "validation"))


def test_tables_with_texts_are_nested_too():
    data = random_table(0, rows=300, unlabeled=0.1, groups=60)
    five, ten, sixteen = (few_label_splits(data, labels_per_class=k) for k in (5, 10, 16))
    assert ids(five, "labeled") < ids(ten, "labeled") < ids(sixteen, "labeled")
    assert ids(ten, "validation") < ids(sixteen, "validation")
    assert ids(five, "test") == ids(sixteen, "test")


# The manifest, saved and loaded


def test_manifest_counts_and_round_trip(tmp_path):
    data = random_table(0)
    splits = few_label_splits(data, labels_per_class=8, seed=4)  # validation is empty here
    assert splits.manifest["counts"]["labeled"] == {"a": 8, "b": 8, "c": 8, "(unlabeled)": 0}
    assert splits.manifest["counts"]["unlabeled"]["(unlabeled)"] == len(splits["unlabeled"])
    assert splits.manifest["schema_version"] == 1
    assert splits.manifest["seed"] == 4
    splits.save(tmp_path / "splits")
    loaded = SemiSupervisedSplits.load(tmp_path / "splits")
    assert loaded.manifest == splits.manifest == json.loads((tmp_path / "splits" / "manifest.json").read_text())
    assert loaded.label_names == ["a", "b", "c"]
    for part in splits:
        assert loaded[part].features == splits[part].features
        assert loaded[part].to_dict() == splits[part].to_dict()
    assert load_from_disk(tmp_path / "splits")["labeled"].num_rows == 24  # plain `datasets` reads it, too
    loaded.save(tmp_path / "splits")  # over the files that it is reading from
    assert SemiSupervisedSplits.load(tmp_path / "splits").manifest == splits.manifest
    assert [path.name for path in tmp_path.iterdir()] == ["splits"]


def test_loading_what_is_not_there_or_of_another_version(tmp_path):
    with pytest.raises(DataError, match="make the splits again"):
        SemiSupervisedSplits.load(tmp_path / "nothing")
    few_label_splits(random_table(0)).save(tmp_path / "splits")
    (tmp_path / "splits" / "manifest.json").write_text('{"schema_version": 99}')
    with pytest.raises(DamagedFile, match="as hfssl wrote it"):
        SemiSupervisedSplits.load(tmp_path / "splits")
    (path := tmp_path / "manifest.json").write_text('{"schema_version": 99}')
    with pytest.raises(DataError, match="expected schema_version 1 in .* got 99"):
        audit([path])


# Bad input


def test_no_labels_at_all():
    data = table(["one", "two"], [-1, -1])
    assert "got 2 rows without a label" in refusal(few_label_splits, data)
    assert "expected some labeled rows" in refusal(few_label_splits, data, unlabeled=random_table(0))


def test_only_one_class():
    data = table(["one", "two", "three"], [1, 1, -1])
    assert "expected labels of at least two classes, got only 'b' in 2 rows" in refusal(few_label_splits, data)


def test_a_class_with_one_label_is_trained_on_with_a_warning():
    generator = np.random.default_rng(0)
    data = table([sentence(generator) for _ in range(31)], [0] * 15 + [1] * 15 + [2])
    splits = few_label_splits(data)
    assert per_class(splits["labeled"])[2] == 1
    assert len(splits["validation"]) == 0
    assert any("the class 'c' has one labeled row" in w for w in splits.manifest["warnings"])
    message = refusal(few_label_splits, data, labels_per_class=2)
    assert "'c' has 1" in message
    assert "ask for at most 1, or label more rows" in message


def test_a_class_without_labels_is_a_warning():
    splits = few_label_splits(random_table(0, class_prior=(0.5, 0.5, 0.0)))
    assert any("the class 'c' has no labeled row" in w for w in splits.manifest["warnings"])


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_label_that_was_never_labeled(part):
    data = random_table(0, class_prior=(0.5, 0.5, 0.0))
    strange = table(["x y z", "u v w"], [0, 1], names=("a", "bb"))
    message = refusal(few_label_splits, data, **{part: strange})
    assert f"expected `{part}` to hold only labels that training rows have, got 'bb' in 1 of its rows" in message
    assert "Did you mean 'b'?" in message
    known_but_unused = table(["x y z", "u v w"], [0, 2])
    assert "got 'c' in 1 of its rows" in refusal(few_label_splits, data, **{part: known_but_unused})


def test_more_labels_asked_for_than_there_are():
    data = random_table(0, rows=100)
    count = per_class(data)[2]
    left = count - round(0.2 * count)
    message = refusal(few_label_splits, data, labels_per_class=left + 1)
    assert f"'c' has {left}" in message
    assert f"ask for at most {left}" in message
    assert per_class(few_label_splits(data, labels_per_class=left)["labeled"])[2] + left // 5 == left


def test_a_class_whose_every_row_repeats_the_test_part():
    generator = np.random.default_rng(0)
    texts = [sentence(generator) for _ in range(30)]
    data = table(texts, [0] * 28 + [1] * 2, "ab")
    message = refusal(few_label_splits, data, test=table(texts[27:], [0, 1, 1], "ab"))
    assert "got none of 'b' once rows that repeat held-out rows" in message


def test_a_table_that_load_table_did_not_make():
    assert "load it with load_table" in refusal(few_label_splits, Dataset.from_dict({"text": ["a"], "label": [0]}))


def test_all_bad_options_are_reported_at_once():
    with pytest.raises(ConfigurationError) as caught:
        few_label_splits(
            random_table(0), labels_per_class=0, test_fraction=1.5, proxy_fraction=-1, max_test=0, seed=-1
        )
    assert len(caught.value.problems) == 5


def test_another_script_in_the_unlabeled_file_is_a_warning():
    generator = np.random.default_rng(0)
    russian = ["".join(chr(0x430 + c) for c in generator.integers(32, size=40)) for _ in range(30)]
    extra = table(russian, [-1] * 30)
    data = random_table(0)
    assert any("Cyrillic, not Latin" in w for w in few_label_splits(data, unlabeled=extra).manifest["warnings"])
    assert not any("script" in w for w in few_label_splits(data, labels_per_class=5).manifest["warnings"])


def test_cut_texts_are_counted(tmp_path):
    generator = np.random.default_rng(0)
    lines = [f"{sentence(generator)},{'ab'[row % 2]}" for row in range(20)]
    lines += [f"{sentence(generator, 15_000)},a"]  # 100,000 characters and more
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["text,label", *lines]))
    splits = few_label_splits(load_table(path))
    assert max(len(text) for text in splits["labeled"]["text"]) == 20_000
    assert any("1 of 21 texts were longer than max_characters" in w for w in splits.manifest["warnings"])


@pytest.mark.shared_data
def test_trec_at_several_budgets():
    if not TREC.exists():
        pytest.skip("needs ../shared/data/trec6")
    train = load_table(TREC, label_names=TREC_NAMES)
    test = load_table(TREC, label_names=TREC_NAMES, split="test")
    splits = {k: few_label_splits(train, test=test, labels_per_class=k) for k in (5, 10, 16)}
    sixteen = splits[16]
    assert per_class(sixteen["labeled"]) == dict.fromkeys(range(6), 13)
    assert per_class(sixteen["validation"]) == dict.fromkeys(range(6), 3)
    assert len(sixteen["test"]) == 500
    assert sixteen.manifest["removed"]["duplicate_of_test"] >= 10  # the ten that META.json of the data set counts
    pool = len(train) - 96 - sum(sixteen.manifest["removed"].values())
    assert len(sixteen["proxy"]) == round(0.1 * pool)
    assert len(sixteen["unlabeled"]) == pool - len(sixteen["proxy"])
    assert ids(splits[5], "labeled") < ids(splits[10], "labeled") < ids(sixteen, "labeled")
    assert ids(splits[10], "validation") < ids(sixteen, "validation")
    assert all(audit([s.manifest]).clean for s in splits.values())
    held_out = {exact_key(text) for part in HELD_OUT for text in sixteen[part]["text"]}
    assert held_out.isdisjoint(exact_key(t) for part in ("labeled", "unlabeled") for t in sixteen[part]["text"])
