"""Stages as data: a new stage is a file and a row, a method becomes a pool stage by a row, and every row holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import load_from_disk

import hfssl.pipeline.fit
from hfssl.config.methods import METHODS, resolve
from hfssl.config.stages import NEUTRAL_GAIN_PRIOR, STAGES, Stage, method_stage, stage_color, stage_row
from hfssl.errors import ConfigurationError, TrainingError
from hfssl.evaluation.verdict import Verdict, expected_gain, mixture_prior
from hfssl.pipeline.fit import fit
from hfssl.pipeline.presets import PRESETS
from hfssl.pipeline.stage_record import StageRecord
from hfssl.reporting.closing_table import closing_table
from tests.helpers import toy_method, toy_stage
from tests.helpers.fit_tiny import TINY


@pytest.fixture
def options(table, tiny_backbone, tmp_path, monkeypatch) -> dict:
    """Options of `fit` on a tiny backbone, without the stages that the tests here have no use for."""
    monkeypatch.setitem(PRESETS, "quick", TINY)
    return {
        "train": str(table),
        "backbone": str(tiny_backbone),
        "preset": "quick",
        "labels_per_class": 10,
        "output_dir": str(tmp_path / "run"),
        "quiet": True,
        "max_length": 32,
        "pretext": False,
        "rounds": 0,
    }


def select(monkeypatch, stage: str) -> None:
    """Makes the verdict select this stage."""

    def judge(probs, labels, **others):
        return Verdict(stage, True, 0.0, [-0.1, 0.1], 0.0, [-0.1, 0.1], ["Made up."], "Made up.")

    monkeypatch.setattr(hfssl.pipeline.fit, "judge", judge)


def correct(folder: Path, stage: str) -> np.ndarray:
    """`[N]` whether the stage's model is right on the validation rows."""
    labels = np.asarray(load_from_disk(str(folder / "splits"))["validation"]["label"])
    with np.load(folder / "stages" / stage / "logits.npz") as saved:
        return saved["validation"].argmax(axis=1) == labels


@pytest.mark.parametrize("name", STAGES)
def test_every_function_that_a_row_names_exists(name):
    stage = STAGES[name]
    paths = [path for path in (stage.run, stage.planned, stage.cost, stage.train_fold, stage.refit) if path]
    assert len(paths) == len({resolve(path) for path in paths})
    assert all(callable(resolve(path)) for path in paths)
    assert all(earlier in STAGES for earlier in stage.includes)
    assert stage.method is None or stage.method in METHODS


def test_a_stage_that_is_not_listed_has_a_readable_title_a_color_and_a_neutral_prior():
    row = stage_row("my_stage")
    assert (row.title, row.model, row.gain_prior) == ("My stage", "my stage", NEUTRAL_GAIN_PRIOR)
    assert stage_color("my_stage") == stage_color("my_stage") != stage_color("self_training")


def test_a_new_stage_is_one_file_and_one_row(options, monkeypatch, caplog):
    monkeypatch.setitem(STAGES, "once", toy_stage.ROW)
    folder = Path(options["output_dir"])
    results = fit(**options, refit=True, cross_fit=2).results
    names = [stage["name"] for stage in results["stages"]]
    assert names[:2] == ["labels_only", "once"]
    assert json.loads((folder / "results.json").read_text())["stages"][1]["config"]["supervised"]["max_steps"] == 12
    assert [line.split()[0] for line in closing_table(results).splitlines()[3:5]] == ["labels", "once-taught"]
    for file in ("report.html", "README.md"):
        assert "Pseudo-labels once" in (folder / file).read_text()
    # The verdict weighs its held-out rows against the neutral prior, and says how the model is called.
    expected = expected_gain(correct(folder, "labels_only"), correct(folder, "once"), mixture_prior("once"))
    assert mixture_prior("once")[0] == (0.95, *NEUTRAL_GAIN_PRIOR)
    assert results["verdict"]["expected_gain"] == pytest.approx(expected[0])
    assert results["verdict"]["reasons"][0].startswith("once-taught: ")
    # Its row names no `train_fold` and no `refit`: no cross-fitting, with a warning, and no refit of it.
    assert "'once' cannot be trained on a fold" in caplog.text
    assert not (folder / "stages" / "cross_fitting").exists()
    select(monkeypatch, "once")
    results = fit(**options, refit=True, cross_fit=2, resume=True).results
    assert [stage["name"] for stage in results["stages"]] == ["labels_only", "once"]
    assert (results["selected_stage"], results["final_stage"]) == ("once", "once")
    assert "'once' cannot be trained once more" in caplog.text
    assert all(stage["attempts"] == 1 for stage in results["stages"])  # nothing was trained a second time


def test_a_method_becomes_a_pool_stage_by_a_row(options, monkeypatch):
    monkeypatch.setitem(METHODS, "entropy", toy_method.ROW)
    monkeypatch.setitem(STAGES, "entropy", method_stage("entropy", "Entropy"))
    settings = {"max_steps": 6, "save_steps": 3, "logging_steps": 2, "per_device_train_batch_size": 6, "lambda_u": 0.5}
    monkeypatch.setitem(PRESETS, "quick", replace(TINY, methods={"entropy": settings}))
    select(monkeypatch, "entropy")
    results = fit(**options, refit=True, cross_fit=2).results
    folder = Path(options["output_dir"])
    assert [stage["name"] for stage in results["stages"]] == ["labels_only", "entropy", "refit"]
    for stage in results["stages"][1:]:
        assert stage["config"]["entropy"]["method"] == "EntropyObjective"
        assert stage["config"]["entropy"]["max_steps"] == 6
        assert stage["metrics"]["test"]["accuracy"] > 0
    record = StageRecord.from_dict(json.loads((folder / "stages/entropy/done.json").read_text()))
    assert [manifest["role"] for manifest in record.manifests] == ["labeled", "unlabeled"]
    assert len(record.manifests[1]["fingerprints"]) == TINY.max_pool_rows
    assert {entry["step"] for entry in record.curves} >= {2, 4, 6}
    with np.load(folder / "stages/cross_fitting/cross_fit.npz") as saved:
        assert set(saved) == {f"{part}/{name}" for part in ("labeled", "proxy") for name in ("labels_only", "entropy")}
    assert any("entropy" in reason for reason in results["verdict"]["reasons"])  # how often the folds' models agree


def returns_nothing(context, folder):
    pass


def keeps_no_predictions(context, folder):
    return StageRecord(metrics={"validation": {"accuracy": 1.0}})


def test_what_a_stage_returns_is_checked_before_it_is_marked_as_done(options, monkeypatch):
    folder = Path(options["output_dir"])
    for run, error, message in (
        (f"{__name__}:return_nothing", ConfigurationError, "Did you mean 'returns_nothing'?"),
        (f"{__name__}:returns_nothing", TrainingError, "the function of the stage 'mine'; got NoneType: return one"),
        (f"{__name__}:keeps_no_predictions", TrainingError, "take the metrics of its record from context.held_out"),
    ):
        monkeypatch.setitem(STAGES, "mine", Stage(title="Mine", run=run))
        with pytest.raises(error, match=message):
            fit(**options, refit=False, resume=folder.exists())
        # A wrong import path is found before the first stage has run.
        assert (folder / "stages/labels_only/done.json").exists() == (error is TrainingError)
        assert not (folder / "stages/mine/done.json").exists()
