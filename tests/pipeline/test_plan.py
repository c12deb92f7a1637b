"""The plan of a run: folds of the labels, and the rows of the pool that their students see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hfssl.config.arguments import FitArguments
from hfssl.data.splits import few_label_splits
from hfssl.pipeline.plan import RunPlan, make_plan
from tests.helpers.fit_tiny import TINY
from tests.helpers.texts import WORDS


def text_of(number: int) -> str:
    """Twenty words that no other number has in this order."""
    generator = np.random.default_rng(number)
    return " ".join([*generator.choice(WORDS, 20), str(number)])


def make_splits(labels: list[int], texts: list[str] | None = None, groups: list[str] | None = None):
    """Splits of these labeled rows and of sixty unlabeled ones, without validation and test."""
    texts = [text_of(i) for i in range(len(labels))] if texts is None else texts
    columns = {"text": [*texts, *(text_of(1000 + i) for i in range(60))], "label": [*labels, *[-1] * 60]}
    features = {"text": Value("string"), "label": ClassLabel(names=["x", "y", "z"][: max(labels) + 1])}
    if groups is not None:
        columns["group"] = [*groups, *(f"pool {i}" for i in range(60))]
        features["group"] = Value("string")
    return few_label_splits(Dataset.from_dict(columns, features=Features(features)), validation_fraction=0.0)


@pytest.fixture
def plan(tmp_path):
    """Plans a run of the tiny preset; options are those of `fit`."""

    def make(splits, preset=TINY, **options) -> RunPlan:
        arguments = FitArguments(
            train="train.csv", backbone="backbone", output_dir=str(tmp_path), preset="quick", **options
        )
        return make_plan(arguments, preset, splits)

    return make


def test_near_duplicates_share_a_fold(plan):
    """What differs in one word of twenty would judge a model that knows it by heart."""
    base = [text_of(i) for i in range(16)]
    texts = [text for first in base for text in (first, first + " indeed")]
    splits = make_splits([i // 2 % 2 for i in range(32)], texts)
    for seed in range(4):
        folds = plan(splits, seed=seed).folds
        of = dict(zip(splits["labeled"]["text"], folds.tolist(), strict=True))
        assert set(of.values()) == {0, 1}
        assert all(of[first] == of[first + " indeed"] for first in base)


def test_groups_share_a_fold_and_rows_of_no_group_are_alone(plan):
    labels, groups = [i % 2 for i in range(36)], [f"film {i // 4}" if i < 24 else "" for i in range(36)]
    splits = make_splits(labels, groups=groups)
    for seed in range(4):
        folds = plan(splits, seed=seed, cross_fit=3).folds
        names = np.array(splits["labeled"]["group"][:])
        assert set(folds) == {0, 1, 2}
        assert all(len(set(folds[names == name])) == 1 for name in set(names) - {""})
        assert len(set(folds[names == ""])) > 1
        labels_found = np.asarray(splits["labeled"]["label"])
        assert all(set(labels_found[folds != fold]) == {0, 1} for fold in range(3))


def test_a_class_with_one_label_is_in_no_fold(plan):
    splits = make_splits([0] * 6 + [1] * 6 + [2])
    made = plan(splits)
    folds, labels = made.folds, np.asarray(splits["labeled"]["label"])
    assert (folds[labels == 2].tolist(), made.num_folds) == ([-1], 2)
    assert set(folds[labels < 2]) == {0, 1}
    classifiers = ("pretext", "labels_only", "labels_only_after_pretext")
    assert made.stages == (*classifiers, "folds", "self_training", "baselines", "cross_fitting")


def test_two_labels_of_the_typical_class_make_no_folds_and_the_user_is_told(plan, caplog):
    made = plan(make_splits([0, 0, 1, 1, 2, 2, 2]))
    assert (made.folds, made.num_folds) == (None, 0)
    assert {"folds", "cross_fitting"}.isdisjoint(made.stages)
    assert "Three labels of each class make folds possible." in caplog.text


def test_folds_may_be_switched_off_and_their_number_given(plan, caplog):
    splits = make_splits([i % 2 for i in range(20)])
    off = plan(splits, cross_fit=0)
    assert off.folds is None
    assert "folds" not in off.stages
    assert "no folds" not in caplog.text
    assert plan(splits, cross_fit=5).num_folds == 5
    assert plan(splits, cross_fit=15).num_folds == 10  # no more than a class has rows
    again, other = plan(splits, seed=1).folds, plan(splits, seed=2).folds
    np.testing.assert_array_equal(again, plan(splits, seed=1).folds)
    assert (again != other).any()


def test_the_students_of_all_folds_see_the_same_part_of_the_pool(plan):
    splits = make_splits([i % 2 for i in range(20)])
    made = plan(splits)
    count = len(made.pool_rows)
    assert (count, len(made.fold_pool)) == (40, 16)
    assert (np.diff(made.fold_pool) > 0).all()
    assert made.fold_pool.max() < count
    np.testing.assert_array_equal(made.fold_pool, plan(splits).fold_pool)
    whole = plan(splits, replace(TINY, fold_pool_rows=40))
    np.testing.assert_array_equal(whole.fold_pool, np.arange(40))


def test_folds_judge_where_there_are_students_of_them_or_other_pool_stages(plan):
    splits = make_splits([i % 2 for i in range(20)])
    without = plan(splits, replace(TINY, fold_students=None))
    assert "folds" in without.stages
    assert "cross_fitting" not in without.stages
    no_rounds = plan(splits, rounds=0, pretext=False)
    assert no_rounds.stages == ("labels_only", "folds", "baselines")  # its accuracy and its temperature rest on them
