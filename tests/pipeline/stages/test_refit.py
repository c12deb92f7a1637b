"""The refit: the selected stage trained once more, on all labels."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import load_from_disk
from scipy.special import softmax

import hfssl.pipeline.fit
import hfssl.pipeline.presets
from hfssl.errors import ConfigurationError
from hfssl.evaluation.temperature_scaling import fit_temperature
from hfssl.metrics.classification import evaluate_probs
from hfssl.pipeline.fit import fit
from hfssl.reporting.closing_table import closing_table
from hfssl.runtime.files import PLACE
from tests.helpers.fit_tiny import TINY, fit_options, select
from tests.helpers.texts import CUES, make_text, write_csv


def logits_of(folder: str, stage: str) -> dict[str, np.ndarray]:
    with np.load(Path(folder) / "stages" / stage / "logits.npz") as saved:
        return dict(saved)


HELD_OUT = {"validation_fraction": 0.2, "refit": True, "cross_fit": 0}


class NoVerdict(Exception):
    """Ends a run where its verdict would be given."""


@pytest.fixture(scope="module")
def up_to_the_verdict(table, tiny_backbone, tmp_path_factory) -> Path:
    """A run that is to be refit, with all stages before its verdict."""
    folder = tmp_path_factory.mktemp("judged") / "run"

    def no_verdict(*_, **__):
        raise NoVerdict

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(hfssl.pipeline.presets.PRESETS, "quick", TINY)
        patch.setattr(hfssl.pipeline.fit, "judge", no_verdict)
        with pytest.raises(NoVerdict):
            fit(**fit_options(table, tiny_backbone, folder), **HELD_OUT)
    return folder


@pytest.mark.usefixtures("tiny_preset")
@pytest.mark.parametrize("selected", ["labels_only", "labels_only_after_pretext", "self_training"])
def test_what_the_verdict_keeps_is_refit_on_all_labels(options, up_to_the_verdict, monkeypatch, selected):
    shutil.copytree(up_to_the_verdict, options["output_dir"])
    select(monkeypatch, selected)
    results = fit(**options, **HELD_OUT, resume=True).results
    assert (results["selected_stage"], results["final_stage"]) == (selected, "refit")
    stage = results["stages"][-1]
    assert stage["name"] == "refit"
    assert stage["metrics"]["validation"] is None  # it has learned from these rows
    assert set(stage["metrics"]["test"]) == {"accuracy", "macro_f1", "nll", "ece"}
    folder = options["output_dir"]
    done = json.loads((Path(folder) / "stages/refit/done.json").read_text())
    learned = {key for manifest in done["manifests"] for key in manifest["fingerprints"]}
    roles = json.loads((Path(folder) / "splits/manifest.json").read_text())["roles"]
    assert learned >= {*roles["labeled"]["fingerprints"], *roles["validation"]["fingerprints"]}
    assert not learned & {*roles["test"]["fingerprints"], *roles["proxy"]["fingerprints"]}
    # How much better than labels only each stage is on the test part, counted on the same rows.
    accuracies = {stage["name"]: stage["metrics"]["test"]["accuracy"] for stage in results["stages"]}
    baseline = accuracies.pop("labels_only")
    assert set(results["test_gains"]) == set(accuracies) == {"labels_only_after_pretext", "self_training", "refit"}
    for name, found in results["test_gains"].items():
        assert found["gain"] == pytest.approx(accuracies[name] - baseline)
        assert found["interval"][0] < found["gain"] < found["interval"][1]
    # What lies in model/ is the refit model, divided by the temperature of the one that it repeats.
    assert set(logits_of(folder, "refit")) - {PLACE} == {"test"}
    expected = evaluate_probs(
        softmax(logits_of(folder, "refit")["test"] / results["temperature"], axis=-1),
        np.asarray(load_from_disk(str(Path(folder) / "splits"))["test"]["label"]),
    )
    assert results["final_metrics"] == {"test": expected}
    before = logits_of(folder, selected)
    validation = np.asarray(load_from_disk(str(Path(folder) / "splits"))["validation"]["label"])
    assert results["temperature"] == pytest.approx(fit_temperature(before["validation"], validation))
    new_teachers = TINY.self_training["num_teachers"] if selected == "self_training" else 0
    assert len(list(Path(folder, "stages/refit").glob("teacher-*/model"))) == new_teachers
    assert "refit, all labels" in closing_table(results)
    assert "Refit on all labels (final)" in (Path(folder) / "README.md").read_text()


def test_validation_rows_of_the_users_own_are_never_learned_from(options, tmp_path, monkeypatch):
    monkeypatch.setitem(hfssl.pipeline.presets.PRESETS, "quick", replace(TINY, refit=True))
    rows = [{"text": make_text(i, name) + " indeed", "label": name} for i in range(300, 306) for name in CUES]
    options["validation"] = str(write_csv(tmp_path / "validation.csv", rows))
    with pytest.raises(ConfigurationError, match="leave out one of the two"):
        fit(**options, refit=True)
    with pytest.raises(ConfigurationError, match="validation gives such rows: leave out one of the two"):
        fit(**options, validation_fraction=0.2)
    results = fit(**options, rounds=0, pretext=False, cross_fit=0).results
    assert results["final_stage"] == results["selected_stage"] == "labels_only"


def test_where_no_label_is_held_out_there_is_nothing_to_refit(options):
    with pytest.raises(ConfigurationError, match="none are: all are learned from.*by validation_fraction=0.2"):
        fit(**options, refit=True)
