"""A run that must end in time: what is cut down, in which order, and that a resumed run keeps to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import hfssl.pipeline.budget
import hfssl.pipeline.presets
from hfssl.errors import ConfigurationError
from hfssl.pipeline.budget import cheaper_presets
from hfssl.pipeline.fit import fit
from hfssl.pipeline.presets import PRESETS, Preset
from tests.helpers.fit_tiny import TINY
from tests.helpers.texts import CUES, make_text, write_csv


def test_what_costs_most_and_brings_least_goes_first():
    preset = replace(PRESETS["standard"], max_pool_rows=1500)
    cuts = cheaper_presets(preset)
    assert cuts[0] == ({}, preset)
    assert [list(words.values())[-1] for words, _ in cuts[1:]] == [
        "750 rows of the pool",
        "500 rows of the pool",
        "no students of the folds",
        "two folds",
        "70% of the steps",
        "50% of the steps",
        "30% of the steps",
        "30% of the steps",  # the folds go: their words take the place of "two folds"
        "no self-training",
    ]
    words, cheapest = cuts[-1]
    assert words["folds"] == "no folds"
    assert cheapest.self_training["rounds"] == 0
    assert cheapest.contrastive["max_steps"] == 24  # 30 % of 80
    steps = [settings.contrastive["max_steps"] for _, settings in cuts]
    assert steps == sorted(steps, reverse=True)


@pytest.fixture
def options(tiny_backbone, tmp_path, monkeypatch) -> dict:
    monkeypatch.setitem(hfssl.pipeline.presets.PRESETS, "quick", replace(TINY, cross_fit=2))
    rows = [{"text": make_text(i, name), "label": name if i < 6 else ""} for i in range(20) for name in CUES]
    return {
        "train": str(write_csv(tmp_path / "train.csv", rows)),
        "output_dir": str(tmp_path / "run"),
        "backbone": str(tiny_backbone),
        "preset": "quick",
        "pretext": False,
        "quiet": True,
        "max_length": 32,
    }


def test_a_slow_machine_cuts_the_run_down_and_a_resumed_run_keeps_to_it(options, monkeypatch, caplog):
    monkeypatch.setattr(hfssl.pipeline.budget, "_units_per_second", lambda context: 1e-3)
    results = fit(**options, max_seconds=60, keep_stages=True).results
    assert [stage["name"] for stage in results["stages"]] == ["labels_only"]
    folder = Path(options["output_dir"])
    chosen = json.loads((folder / "budget.json").read_text())
    assert "less than the cheapest run is expected to take on this machine" in chosen["notice"]
    assert chosen["expected_seconds"] > 60
    (folder / "results.json").unlink()

    def measured(context):
        raise AssertionError("The speed was measured again.")

    monkeypatch.setattr(hfssl.pipeline.budget, "_units_per_second", measured)
    again = fit(**options, max_seconds=60, keep_stages=True, resume=True).results
    assert [stage["name"] for stage in again["stages"]] == ["labels_only"]


def test_a_fast_machine_cuts_nothing(options, monkeypatch):
    monkeypatch.setattr(hfssl.pipeline.budget, "_units_per_second", lambda context: 1e12)
    results = fit(**options, max_seconds=60, rounds=0).results
    chosen = json.loads((Path(options["output_dir"]) / "budget.json").read_text())
    assert (chosen["number"], chosen["notice"]) == (0, "")
    assert results["stages"][0]["metrics"]["out_of_fold"]


def test_a_budget_must_be_positive(options):
    with pytest.raises(ConfigurationError, match="max_seconds must be above 0, got 0"):
        fit(**options, max_seconds=0)


@pytest.mark.parametrize(("labels", "steps"), [(16, 50), (1, 40), (100, 80), (400, 160)])
def test_steps_grow_with_the_root_of_the_labels_and_shrink_slowly_below_a_hundred(labels, steps):
    # 80 * (16 / 100) ** .25 = 50.6, rounded up; half of them at least; 80 * sqrt(400 / 100)
    preset = Preset(contrastive={"max_steps": 80}, few_labels_power=0.25)
    assert preset.at(labels).contrastive["max_steps"] == pytest.approx(steps, abs=1)


def test_the_pool_of_quick_grows_with_the_labels():
    preset = Preset(max_pool_rows=2000, pool_rows_per_label=50)
    assert [preset.pool_rows(5000, labels) for labels in (10, 30, 100)] == [1000, 1500, 2000]
    assert preset.pool_rows(300, 100) == 300
    assert Preset().pool_rows(5000, 10) == 5000
