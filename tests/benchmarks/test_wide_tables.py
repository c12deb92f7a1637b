"""Tables, comparisons and goals of the wide grid, by hand."""

from __future__ import annotations

import math
import sys

import pytest

from tests.helpers import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import cells
import wide_goals
import wide_statistics
import wide_tables
from wide_statistics import mean_and_error, paired, set_means


def fake_cell(method: str, dataset: str, accuracy: float, *, budget="low", seed=0, variant="", pool="own", **more):
    return {
        "dataset": dataset,
        "budget": budget,
        "labels_per_class": 8,
        "method": method,
        "variant": variant,
        "overrides": {},
        "pool": pool,
        "seed": seed,
        "accuracy": accuracy,
        "macro_f1": accuracy - 0.1,
        "ece": 0.06,
        "debiased_ece": 0.04,
        "seconds": 10.0,
        "notes": {},
        "settings": {},
        "rows": {"digest": "same"},
        "code": {},
        **more,
    }


def numbers_of(*kept):
    return wide_tables.by_label(kept)


def test_a_set_counts_once_however_many_cells_it_has():
    points = {("a", "low", 0): 60.0, ("a", "low", 1): 70.0, ("a", "high", 0): 85.0, ("b", "low", 0): 50.0}
    assert set_means(points) == {"a": 75.0, "b": 50.0}  # a: (65 + 85) / 2
    # mean of 75 and 50; standard deviation 17.68, over sqrt(2)
    assert mean_and_error([75.0, 50.0]) == (62.5, pytest.approx(12.5))
    mean, error = mean_and_error([3.0])
    assert mean == 3.0
    assert math.isnan(error)


def test_a_gain_counts_over_twice_its_standard_error():
    base = {(name, "low", 0): {"accuracy": 0.5, "macro_f1": 0.5} for name in "abcd"}

    def gain(*points: float) -> wide_statistics.Gain:
        ours = {
            (name, "low", 0): {"accuracy": 0.5 + one / 100, "macro_f1": 0.5}
            for name, one in zip("abcd", points, strict=False)
        }
        return paired(ours, base)

    # mean 2; deviations 1, 1, -1, -1: standard deviation 1.155, standard error 0.577
    assert (gain(1, 1, 3, 3).mean, gain(1, 1, 3, 3).error) == (pytest.approx(2.0), pytest.approx(0.57735, abs=1e-5))
    assert gain(1, 1, 3, 3).counts
    assert gain(-1, -1, -3, -3).counts
    assert not gain(0, 0, 4, 2).counts  # mean 1.5, standard error 0.957
    assert not gain(3).counts  # of one set nothing is known
    both = paired({("a", "low", 0): {"accuracy": 0.6, "macro_f1": 0.5}}, base, "both")
    assert both.mean == pytest.approx(5.0)
    assert paired({("z", "low", 0): {"accuracy": 0.6}}, base).by_place == {}


def rows_of(text: str) -> list[list[str]]:
    return [[word for word in line.split("  ") if word.strip()] for line in text.splitlines()]


def test_tables_show_means_worst_cells_and_gains():
    kept = [
        fake_cell("setfit", "trec6", 0.80),
        fake_cell("setfit", "sst2", 0.60),
        fake_cell("hfssl_standard", "trec6", 0.84, seconds=5.0, stages={"labels_only": fake_cell("", "trec6", 0.81)}),
        fake_cell("hfssl_standard", "sst2", 0.66, debiased_ece=0.02, stages={}),
        fake_cell("hfssl_standard", "sst2", 0.68, variant="soup"),
        fake_cell("hfssl_standard", "sst2", 0.30, pool="foreign"),  # in no table
    ]
    numbers = numbers_of(*kept)
    assert list(numbers) == ["setfit", "hfssl_standard", "hfssl_standard: labels_only", "hfssl_standard+soup"]
    lines = [" ".join(line.split()) for line in wide_tables.means_table(numbers).splitlines()]
    assert "setfit 70.0 ± 10.0 60.0 ± 10.0 65.0 ± 10.0 60.0 sst2/low/0 6.0 4.0 10 2/2" in lines
    assert "hfssl_standard 75.0 ± 9.0 65.0 ± 9.0 70.0 ± 9.0 66.0 sst2/low/0 6.0 3.0 8 2/2" in lines
    by_set = [line.split() for line in wide_tables.sets_table(numbers, "macro_f1").splitlines()]
    assert by_set[1:] == [["trec6", "70.0", "74.0", "71.0", "-"], ["sst2", "50.0", "56.0", "-", "58.0"]]
    told = [" ".join(line.split()) for line in wide_tables.comparisons(numbers).splitlines()]
    # gains 4 and 6: mean 5, standard error 1; 5 + 10 seconds against 10 + 10
    expected = "+5.00 ± 1.00* +5.00 ± 1.00* +5.00 ± 1.00* 2/2 +4.0 trec6 +4.0 trec6/low/0 0.75 2"
    assert f"hfssl_standard setfit {expected}" in told
    assert "hfssl_standard+soup hfssl_standard +2.00 +2.00 +2.00 1/1 +2.0 sst2 +2.0 sst2/low/0 1.00 1" in told
    assert any(line.startswith("hfssl_standard hfssl_standard: labels_only +3.00") for line in told)
    against = [line.split() for line in wide_tables.comparisons(numbers, "hfssl_standard").splitlines()]
    assert [line[0] for line in against[4:]] == ["setfit", "hfssl_standard:", "hfssl_standard+soup"]
    with pytest.raises(SystemExit, match="Expected one of setfit, "):
        wide_tables.wide_report(kept, against="nobody")


def test_rows_that_differ_and_peers_that_were_stopped_are_told():
    kept = [
        fake_cell(
            "setfit", "trec6", 0.8, rows={"digest": "a", "whole_digest": "x"}, notes={"capped": "9 of 99 steps"}
        ),
        fake_cell("trainer_full", "trec6", 0.8, rows={"digest": "b", "whole_digest": "x"}),
        fake_cell("setfit", "sst2", 0.8, rows={"digest": "a", "whole_digest": "x"}),
        fake_cell("trainer_full", "sst2", 0.8, rows={"digest": "a", "whole_digest": "y"}),
    ]
    notes = wide_tables._notes(kept)
    assert "NOT COMPARABLE, sst2 low 0 own: setfit saw other rows than trainer_full; run them with --again" in notes
    assert not any("trec6 low 0" in note for note in notes)  # only divided in another way
    assert "setfit on trec6 (low): stopped after 9 of 99 steps" in notes


def test_goals_of_gains_seconds_and_calibration():
    accuracy = {
        "setfit": (0.80, 0.60),
        "trainer_full": (0.79, 0.65),
        "hfssl_standard": (0.84, 0.66),
        "hfssl_quick": (0.83, 0.64),
        "before_standard": (0.8, 0.6),
    }
    seconds = {"hfssl_standard": 9.0, "before_standard": 10.0}
    kept = [
        fake_cell(method, dataset, value, seconds=seconds.get(method))
        for method, values in accuracy.items()
        for dataset, value in zip(("trec6", "sst2"), values, strict=True)
    ]
    for cell in kept:
        if cell["method"] == "hfssl_standard":
            cell["stages"] = {
                "labels_only": {**cell, "accuracy": cell["accuracy"] + (0.02 if cell["dataset"] == "sst2" else 0)}
            }
    kept += [
        fake_cell(method, "sst2", value, seed=7) for method, value in (("hfssl_standard", 0.70), ("setfit", 0.65))
    ]
    found = wide_goals.goals(numbers_of(*kept), kept)
    # trainer_full has a mean of 72.0, setfit of 70.0: standard has 75.0
    assert found[:6] == [
        "  reached       standard minus best peer, trainer_full: +3.0 ± 2.0 points (goal 3.0; 2 data sets)",
        "  reached       data sets where standard is level with it or above: 2 (goal 9 of 13; 2 data sets)",
        "  MISSED        quick minus best peer, trainer_full: +1.5 ± 2.5 points (goal 2.0; 2 data sets)",
        "  MISSED        data sets where standard is over 1 point below its labels only: sst2 -2.0 "
        "(goal none; 2 data sets)",
        "  reached       standard / seconds of the earlier commit: 0.90 (goal at most 1.0; 2 cells)",
        "  not measured  quick / seconds of the earlier commit (goal at most 0.8; 0 cells)",
    ]
    assert found[6] == "  reached       standard, mean debiased calibration error: 0.040 (goal at most 0.05; 2 cells)"
    # 5 points with seed 7, and (4 + 6) / 2 with the seed of the grid
    told = "standard minus setfit on fresh draws: +5.0, on those of the grid +5.0 (goal within 0.7 points; 1 cells)"
    assert found[8] == f"  reached       {told}"


def judged(dataset: str, *, labels_only: float, student: float, selected: str, verdict: dict, **more) -> dict:
    stages = {"labels_only": {"accuracy": labels_only}, "self_training": {"accuracy": student}}
    stages |= {"refit": {"accuracy": 0.99}}
    for stage in stages.values():
        stage["macro_f1"] = stage["accuracy"]
    options = {"selected_stage": selected, "verdict": verdict, "stages": stages, **more}
    return fake_cell("hfssl_standard", dataset, 0.9, **options)


def test_the_verdict_against_the_test_part():
    wide_one = {"expected_gain": 0.02, "expected_interval": [-0.05, 0.09]}
    with_own = wide_one | {"expected_interval_80": [0.029, 0.031]}
    kept = [
        judged("trec6", labels_only=0.80, student=0.83, selected="self_training", verdict=with_own),
        judged("sst2", labels_only=0.80, student=0.79, selected="self_training", verdict=wide_one),
        judged("emotion", labels_only=0.80, student=0.90, selected="labels_only", verdict=wide_one),
    ]
    found = [wide_goals.trust(cell) for cell in kept]
    assert [round(one.regret, 6) for one in found] == [0.0, 1.0, 10.0]
    assert [round(one.gain, 6) for one in found] == [0.03, -0.01, 0.1]
    # the normal one is 1.2816 / 1.96 = 0.654 times as wide: 0.02 +- 0.0458
    assert found[1].intervals[0.8] == (pytest.approx(-0.02577, abs=1e-5), pytest.approx(0.06577, abs=1e-5))
    assert found[0].intervals[0.8] == (0.029, 0.031)
    lines = wide_goals._verdict(kept)
    assert "mean regret of the verdict: 3.67 points (goal at most 0.3; 3 runs)" in lines[0]
    # held: trec6 and sst2, not emotion
    assert lines[1].startswith(
        "  MISSED        80% intervals that hold the gain on the test part: 67% (goal 70 to 90%"
    )
    assert lines[2].strip() == "95% intervals that hold the gain on the test part: 67% (no goal; 3 runs)"
    assert wide_goals.trust(fake_cell("hfssl_standard", "mpqa", 0.9)) is None


def test_clear_losses_and_harmful_pools_are_named():
    fine = [
        fake_cell("hfssl_standard", "trec6", 0.9, seed=seed, shipped={"gain": -0.03, "p_worse": 0.06})
        for seed in range(39)
    ]
    bad = fake_cell("hfssl_quick", "sst2", 0.9, shipped={"gain": -0.03, "p_worse": 0.04})
    planted = fake_cell("hfssl_standard", "mpqa", 0.9, pool="foreign", shipped={"gain": -0.021, "p_worse": 0.3})
    assert wide_goals._losses([*fine, bad]).startswith("  reached ")
    missed = wide_goals._losses([*fine[:38], bad])
    assert missed.startswith("  MISSED ")
    assert "(p < 0.05): sst2/low/0 quick (goal at most 1 of 40; 39 runs)" in missed
    assert "over 2 points: mpqa/low/0 standard, foreign -2.1 (goal none; 1 runs)" in wide_goals._harm([planted])
    lines = wide_goals.goals(numbers_of(*fine, planted), [*fine, planted])
    assert "standard, foreign -2.1" in " ".join(lines)
    assert set(cells.HFSSL) >= {"hfssl_quick", "hfssl_standard"}
