"""The planned stages, in order: a new stage is a file and a row, and what a stage returns is checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import load_from_disk

from hfssl.config.stages import NEUTRAL_GAIN_PRIOR, STAGES, Stage
from hfssl.errors import ConfigurationError, TrainingError
from hfssl.evaluation.verdict import expected_gain, mixture_prior
from hfssl.pipeline.fit import fit
from hfssl.pipeline.runner import TimeLeft
from hfssl.pipeline.stage_record import StageRecord
from hfssl.reporting.closing_table import closing_table
from tests.helpers import toy_stage
from tests.helpers.fit_tiny import select


def correct(folder: Path, stage: str) -> np.ndarray:
    """`[N]` whether the stage's model is right on the validation rows."""
    labels = np.asarray(load_from_disk(str(folder / "splits"))["validation"]["label"])
    with np.load(folder / "stages" / stage / "logits.npz") as saved:
        return saved["validation"].argmax(axis=1) == labels


def test_a_new_stage_is_one_file_and_one_row(labels_only_options, monkeypatch, caplog):
    monkeypatch.setitem(STAGES, "once", toy_stage.ROW)
    folder = Path(labels_only_options["output_dir"])
    options = labels_only_options | {"validation_fraction": 0.2, "refit": True, "cross_fit": 2}
    results = fit(**options).results
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
    assert "'once' cannot be trained on a part of the labels" in caplog.text
    assert not (folder / "stages" / "cross_fitting").exists()
    select(monkeypatch, "once")
    (folder / "results.json").unlink()  # a finished run is not judged again
    results = fit(**options, resume=True).results
    assert [stage["name"] for stage in results["stages"]] == ["labels_only", "once"]
    assert (results["selected_stage"], results["final_stage"]) == ("once", "once")
    assert "'once' cannot be trained once more" in caplog.text
    assert all(stage["attempts"] == 1 for stage in results["stages"])  # nothing was trained a second time


def returns_nothing(context, folder):
    pass


def keeps_no_predictions(context, folder):
    return StageRecord(metrics={"validation": {"accuracy": 1.0}})


def test_what_a_stage_returns_is_checked_before_it_is_marked_as_done(labels_only_options, monkeypatch):
    folder = Path(labels_only_options["output_dir"])
    for run, error, message in (
        (f"{__name__}:return_nothing", ConfigurationError, "Did you mean 'returns_nothing'?"),
        (f"{__name__}:returns_nothing", TrainingError, "the function of the stage 'mine'; got NoneType: return one"),
        (f"{__name__}:keeps_no_predictions", TrainingError, "take the metrics of its record from context.held_out"),
    ):
        monkeypatch.setitem(STAGES, "mine", Stage(title="Mine", run=run))
        with pytest.raises(error, match=message):
            fit(**labels_only_options, resume=folder.exists())
        # A wrong import path is found before the first stage has run.
        assert (folder / "stages/labels_only/done.json").exists() == (error is TrainingError)
        assert not (folder / "stages/mine/done.json").exists()


def test_the_time_left_is_that_of_the_stages_that_are_left():
    left = TimeLeft({"folds": 10.0, "labels_only": 20.0, "self_training": 60.0, "refit": 30.0})
    assert left.after("folds", None) is None  # done by an earlier run: nothing is known of its speed here
    assert left.after("labels_only", 40.0) == "about 3 minutes are left for the whole run"  # (60 + 30) * 40 / 20
    assert left.after("self_training", 20.0) == "about 22 seconds are left for the whole run"  # 30 * 60 / 80
    assert left.after("refit", 1.0) is None
