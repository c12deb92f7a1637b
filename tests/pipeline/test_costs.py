"""The cost of a run, by hand."""

from __future__ import annotations

import pytest

from hfssl.config.methods import METHODS
from hfssl.config.stages import STAGES, method_stage
from hfssl.pipeline.costs import RunSizes, StageCost, cost_table, estimate_costs, scoring_tokens
from hfssl.pipeline.presets import Preset
from tests.helpers import toy_method


def test_a_trained_token_costs_three_passes_and_a_scored_one_costs_one():
    assert StageCost("a", trained=10, scored=5).units == 35


def test_trunk_reuse_costs_a_share_of_each_pass():
    # Three models over 100 rows of 10 tokens: three full passes, and six through a third of the layers.
    assert scoring_tokens(100, 10, models=3, passes=6, share_of_layers=1 / 3) == pytest.approx(5000)


def test_the_table_gives_percentages_of_the_whole():
    lines = cost_table([StageCost("labels_only", 1_000_000), StageCost("self_training", 2_500_000, 1_500)]).split("\n")
    assert lines[1] == "  labels only     29%       1M tokens trained"
    assert lines[2] == "  self-training   71%     2.5M tokens trained, 1.5k scored"


def test_the_plan_of_a_run():
    preset = Preset(
        supervised={"max_steps": 100},
        contrastive={"max_steps": 50, "per_device_train_batch_size": 8},
        self_training={"max_steps": 200, "unlabeled_ratio": 3, "mc_passes": 4, "mc_top_layers": 3, "num_teachers": 2},
    )
    numbers = {"lengths": {"labeled": 10.0, "unlabeled": 20.0}, "pool": 1000, "layers": 6}
    sizes = {"labels": 80, "held_out": 20, **numbers}

    def costs_of(*stages: str, **more) -> list[StageCost]:
        return estimate_costs(RunSizes(preset, stages, **sizes | more))

    costs = costs_of("labels_only", "self_training", "refit", rounds=2)
    one = 100 * 16 * 10 + 50 * 8 * 2 * 10  # 16 rows is the default; each row of the contrastive stage enters twice
    student = 200 * 16 * (10 + 3 * 20)
    # Two teachers, then one: full passes, and four through half of the layers..
    scored = 1000 * 20 * ((2 + 4 / 2) + (1 + 4 / 2))
    assert costs == [
        StageCost("labels_only", one),
        StageCost("self_training", one + 2 * student, scored),
        StageCost("refit", 2 * one + student, 1000 * 20 * (2 + 4 / 2)),
    ]
    stages = ("pretext", "labels_only", "labels_only_after_pretext", "folds", "self_training", "cross_fitting")
    folded = costs_of(*stages, rounds=2, folds=3)
    assert folded[0] == StageCost("pretext", 300 * 32 * 20)  # 32 rows is the default
    assert folded[2] == StageCost("labels_only_after_pretext", one)
    # Each fold has a model of both kinds; three teachers and that of all labels look at the pool, once for all.
    assert folded[3] == StageCost("folds", 3 * 2 * one, 1000 * 20 * (4 + 4 / 2))
    assert folded[4] == StageCost("self_training", 2 * student, 1000 * 20 * (1 + 4 / 2))
    assert folded[5] == StageCost("cross_fitting", 3 * student, 0)
    preset.self_training["retrain_head"] = True  # each student looks at the pool once more
    fitted = costs_of(*stages, "refit", rounds=2, folds=3)
    scored = [cost.scored for cost in fitted]
    assert scored == [0, 0, 0, 20_000 * 6, 20_000 * (3 + 2), 20_000 * 3, 20_000 * (4 + 1)]
    preset.self_training["model_soup"] = True  # one more model that labels the pool, made of the two: not with folds
    with_soup = costs_of(*stages, "refit", rounds=2, folds=3)
    assert [cost.scored - few for cost, few in zip(with_soup, scored, strict=True)] == [0, 0, 0, 0, 0, 0, 20_000]
    assert [cost.trained for cost in with_soup] == [cost.trained for cost in fitted]
    assert costs_of("labels_only", "self_training", rounds=1)[1].scored == 20_000 * (3 + 4 / 2 + 1)
    shorter = costs_of("labels_only", "refit", max_steps=10)
    assert [cost.trained for cost in shorter] == [10 * 16 * 10 + 50 * 8 * 2 * 10] * 2
    # 1.5 and 2 times the steps of 100 labels
    more = costs_of("labels_only", "self_training", "refit", rounds=1, labels=225, held_out=175)
    student = 16 * (10 + 3 * 20)
    assert [cost.trained for cost in more] == [
        150 * 160 + 75 * 160,
        150 * 160 + 75 * 160 + 300 * student,
        2 * (200 * 160 + 100 * 160) + 400 * student,
    ]


def test_the_models_of_the_folds_may_be_shorter_and_see_less_of_the_pool():
    preset = Preset(
        supervised={"max_steps": 0},
        contrastive={"max_steps": 50, "per_device_train_batch_size": 8},
        self_training={"max_steps": 200, "unlabeled_ratio": 3, "mc_passes": 0, "retrain_head": True},
        fold_teachers={"max_steps": 10},
        fold_students={"max_steps": 20},
        fold_pool_rows=250,
    )
    stages = ("labels_only", "folds", "self_training", "cross_fitting")
    sizes = {"lengths": {"labeled": 10.0, "unlabeled": 20.0}, "labels": 80, "held_out": 0, "pool": 1000, "layers": 6}
    costs = estimate_costs(RunSizes(preset, stages, rounds=1, folds=2, **sizes))
    teacher, student = 10 * 8 * 2 * 10, 20 * 16 * (10 + 3 * 20)
    assert costs[1] == StageCost("folds", 2 * teacher, 20_000 * 3)
    assert costs[3] == StageCost("cross_fitting", 2 * student, 2 * 250 * 20)
    [_, folds] = estimate_costs(RunSizes(preset, ("labels_only", "folds"), folds=2, **sizes))
    assert folds == StageCost("folds", 2 * teacher)  # without rounds nobody looks at the pool
    more = estimate_costs(RunSizes(preset, stages, rounds=1, folds=2, **sizes | {"labels": 400}))
    assert more[1].trained == 2 * 15 * 8 * 2 * 10  # sqrt(2) as many steps for the 200 labels outside a fold
    assert more[3].trained == 2 * 40 * 16 * 70


def test_a_stage_of_one_method_costs_its_steps_and_so_do_its_folds_and_its_refit(monkeypatch):
    monkeypatch.setitem(METHODS, "entropy", toy_method.ROW)
    monkeypatch.setitem(STAGES, "entropy", method_stage("entropy", "Entropy"))
    settings = {"max_steps": 10, "per_device_train_batch_size": 4, "unlabeled_ratio": 2}
    preset = Preset(supervised={"max_steps": 3, "per_device_train_batch_size": 4}, methods={"entropy": settings})
    stages = ("labels_only", "folds", "entropy", "cross_fitting", "refit")
    lengths = {"labeled": 10.0, "unlabeled": 20.0}
    costs = estimate_costs(RunSizes(preset, stages, lengths, labels=8, held_out=2, pool=50, layers=2, folds=3))
    one, method = 3 * 4 * 10, 10 * 4 * (10 + 2 * 20)
    assert [cost.trained for cost in costs] == [one, 3 * one, method, 3 * method, method]
    assert [cost.scored for cost in costs] == [0, 0, 0, 0, 0]


@pytest.mark.parametrize(("labels", "steps"), [(5, 60), (100, 60), (101, 61), (400, 120), (500, 135)])
def test_the_steps_of_a_preset_grow_with_the_root_of_the_labels(labels, steps):
    preset = Preset(
        supervised={"max_steps": 0},
        contrastive={"max_steps": 60, "learning_rate": 1e-4},
        pretext={"max_steps": 10},
        self_training={"rounds": 1, "max_steps": 60},
        fold_teachers={"max_steps": 60},
        fold_students={"max_steps": 60, "learning_rate": 1e-3},
    )
    grown = preset.at(labels)
    assert grown.contrastive == {"max_steps": steps, "learning_rate": 1e-4}
    assert grown.self_training == {"rounds": 1, "max_steps": steps}
    assert grown.fold_teachers == {"max_steps": steps}
    assert grown.fold_students == {"max_steps": steps, "learning_rate": 1e-3}
    assert (grown.supervised, grown.pretext) == (preset.supervised, preset.pretext)
    assert Preset().at(labels) == Preset()


def test_teachers_differ_in_turns():
    preset = Preset(teacher_overrides=({"learning_rate": 1e-4}, {"contrastive_loss": "cosine"}))
    settings = [preset.overrides(number) for number in range(5)]
    assert settings == [{}, *preset.teacher_overrides, *preset.teacher_overrides]
    assert [Preset().overrides(number) for number in range(3)] == [{}] * 3
