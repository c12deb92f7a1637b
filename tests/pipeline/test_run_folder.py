"""The folder of a run: folders of an older hfssl are recognised."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from hfssl.cli.main import main
from hfssl.deploy.push import files_to_push
from hfssl.errors import ConfigurationError, ModelError
from hfssl.pipeline.fit import fit
from hfssl.pipeline.presets import PRESETS
from hfssl.pipeline.run_folder import RunFolder, model_and_splits
from hfssl.pipeline.stage_record import StageRecord
from hfssl.reporting.results import SCHEMA_VERSION, read_results, results_schema
from tests.helpers.fit_tiny import TINY

EXPECTED = f"Expected a run of schema version {SCHEMA_VERSION} in .*, but found version"


@pytest.fixture(scope="module")
def finished(small_table, tiny_backbone, tmp_path_factory) -> dict:
    """Options of a finished run of labels only, of which each test gets a copy."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    options = {"train": str(small_table), "backbone": str(tiny_backbone), "output_dir": str(folder)}
    options |= {"preset": "quick", "labels_per_class": 6, "rounds": 0, "cross_fit": 0, "pretext": False}
    options |= {"quiet": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "quick", TINY)
        fit(**options)
    return options


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> dict:
    """Options of that run in a folder of the test's own."""
    monkeypatch.setitem(PRESETS, "quick", TINY)
    shutil.copytree(finished["output_dir"], tmp_path / "run")
    return finished | {"output_dir": str(tmp_path / "run")}


def make_older(folder: Path) -> None:
    """Turns the files of a run into those of an hfssl that wrote schema version 1."""
    settings = json.loads((folder / "settings.json").read_text())
    del settings["schema_version"]
    (folder / "settings.json").write_text(json.dumps(settings))
    results = json.loads((folder / "results.json").read_text())
    results = {name: value for name, value in results.items() if name not in ("selected_stage", "final_stage")}
    (folder / "results.json").write_text(json.dumps(results | {"schema_version": 1}))


def test_results_follow_the_published_schema(run):
    results = read_results(run["output_dir"])
    validator = jsonschema.Draft202012Validator(results_schema())
    validator.check_schema(results_schema())
    validator.validate(results)
    for key in ("selected_stage", "final_metrics", "stages"):
        with pytest.raises(jsonschema.ValidationError, match=key):
            validator.validate({name: value for name, value in results.items() if name != key})
    with pytest.raises(jsonschema.ValidationError, match="seconds"):
        validator.validate(results | {"seconds": 1.0})


def test_an_older_run_is_not_resumed_and_can_be_replaced(run):
    folder = Path(run["output_dir"])
    make_older(folder)
    for options in ({"resume": True}, {}):
        with pytest.raises(ConfigurationError, match=f"{EXPECTED} 1, .* --overwrite-output-dir"):
            fit(**run, **options)
    assert (folder / "model" / "model.safetensors").exists()
    settings = json.loads((folder / "settings.json").read_text()) | {"schema_version": SCHEMA_VERSION + 1}
    (folder / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigurationError, match="a newer hfssl"):
        RunFolder(folder, {}, resume=True, overwrite=False)
    fit(**run, overwrite_output_dir=True)
    assert read_results(folder)["schema_version"] == SCHEMA_VERSION


@pytest.mark.parametrize("command", [["push", "--repo-id", "me/reviews", "--dry-run"], ["export"], ["demo"]])
def test_commands_on_an_older_run_say_what_to_give_instead(run, command, capsys):
    folder = Path(run["output_dir"])
    make_older(folder)
    verb, *more = command
    assert main([verb, "--folder", str(folder), *more]) == 2
    error = capsys.readouterr().err
    assert (
        f"found version 1, which an older hfssl has written. Run hfssl fit again, or give '{folder / 'model'}'"
        in error
    )
    assert error.count("\n") <= 2
    assert model_and_splits(folder / "model") == (folder / "model", None)  # what it names is taken


def test_a_stage_runs_once_and_its_record_survives_the_disk(tmp_path):
    run = RunFolder(tmp_path, {}, resume=False, overwrite=False)
    runs = []

    def work(folder: Path) -> StageRecord:
        runs.append(folder)
        return StageRecord(config={"supervised": {"max_steps": 3}}, rounds=[{"round": 0}], alarms=["It collapsed."])

    first = run.run_once("labels_only", work)
    assert (first.attempts, runs) == (1, [tmp_path / "stages" / "labels_only"])
    assert run.run_once("labels_only", work) == run.done("labels_only") == first
    assert len(runs) == 1
    assert run.done("self_training") is None


def test_an_unfinished_run_is_not_pushed(run):
    folder = Path(run["output_dir"])
    (folder / "results.json").unlink()
    with pytest.raises(ModelError, match="it has no results.json: finish it with hfssl fit --resume"):
        files_to_push(folder, "me/reviews")
