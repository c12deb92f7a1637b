"""The folder of a run: folders of an older hfssl are recognised, and nothing of the user's is ever taken over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from hfssl.cli.main import main
from hfssl.deploy.push import files_to_push
from hfssl.errors import ConfigurationError, DamagedFile, ModelError
from hfssl.pipeline.fit import fit
from hfssl.pipeline.presets import PRESETS
from hfssl.pipeline.run_folder import RunFolder, model_and_splits
from hfssl.pipeline.stage_record import StageRecord
from hfssl.reporting.results import SCHEMA_VERSION, read_results, results_schema
from hfssl.runtime.files import atomic_directory, write_arrays
from hfssl.runtime.ledger import seal
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


def begun(path: Path, settings: dict | None = None, **options) -> RunFolder:
    """A run that has saved its splits."""
    found = RunFolder(path, settings or {"seed": 0}, **({"resume": False, "overwrite": False} | options))
    found.open()
    found.splits.mkdir(exist_ok=True)
    found.save_inputs({})
    return found


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", ["settings.json", "results.json", "inputs.json", "splits/a", ".x.tmp", "train.csv"])
def test_a_folder_with_files_of_common_names_is_nobody_elses(tmp_path, name):
    (tmp_path / "mine" / name).parent.mkdir(parents=True)
    (tmp_path / "mine" / name).write_text("{}")
    before = tree(tmp_path)
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(ConfigurationError, match=r"is not empty and holds no hfssl run \(no hfssl_run.json\)"):
            RunFolder(tmp_path / "mine", {}, **({"resume": False, "overwrite": False} | options))
    assert tree(tmp_path) == before


@pytest.mark.parametrize("left", [[], [".hfssl_run.json.ab12_xyz.tmp"], ["hfssl_run.lock", "lost+found"]])
def test_what_a_kill_leaves_before_the_marker_is_in_nobodys_way(tmp_path, left):
    (tmp_path / "run").mkdir()
    for name in left:
        (tmp_path / "run" / name).touch()
    begun(tmp_path / "run").close()
    assert not list((tmp_path / "run").glob("*.tmp"))
    assert RunFolder(tmp_path / "run", {"seed": 0}, resume=True, overwrite=False).resumed


@pytest.mark.parametrize("left", [{"splits/x": ""}, {"settings.json": '{"seed'}, {".settings.json.ab12_xyz.tmp": ""}])
def test_what_a_kill_leaves_before_the_data_is_replaced(tmp_path, left):
    first = RunFolder(tmp_path / "run", {"seed": 7}, resume=False, overwrite=False)
    first.open()
    first.close()
    for name, content in left.items():
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text(content)
    begun(tmp_path / "run").close()
    assert not (tmp_path / "run" / "splits" / "x").exists()
    assert not list((tmp_path / "run").glob(".*.tmp"))
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["seed"] == 0


def test_overwriting_deletes_what_hfssl_wrote_and_nothing_else(tmp_path):
    begun(tmp_path / "run").close()
    run = tmp_path / "run"
    (run / "stages" / "labels_only").mkdir(parents=True)
    (run / "stages" / "labels_only" / "old").touch()
    (run / "results.json").write_text("{}")
    mine = {"train.csv": "text,label", ".notes.tmp": "x", "figures/a.png": "y"}
    for name, content in mine.items():
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(content)
    again = RunFolder(run, {"seed": 5}, resume=False, overwrite=True, inputs=[run / "train.csv"])
    assert (run / "stages" / "labels_only" / "old").exists()  # nothing is deleted before the input is known to be good
    again.open()
    again.close()
    assert {name: (run / name).read_text() for name in mine} == mine
    left = {path.name for path in run.iterdir()}
    assert left == {"hfssl_run.json", "settings.json", "train.csv", ".notes.tmp", "figures"}


def test_an_input_within_the_run_that_is_to_be_deleted_is_refused(tmp_path):
    begun(tmp_path / "run").close()
    (tmp_path / "run" / "splits" / "train.csv").write_text("text,label")
    (tmp_path / "link").symlink_to("run")
    given = tmp_path / "link" / "splits" / "train.csv"
    with pytest.raises(ConfigurationError, match="would delete '.*train.csv', which it is to read: copy that"):
        RunFolder(tmp_path / "run", {}, resume=False, overwrite=True, inputs=[given])


def test_a_file_of_the_users_in_a_folder_of_hfssl_is_refused(tmp_path):
    begun(tmp_path / "run").close()
    with atomic_directory(tmp_path / "run" / "model") as folder:
        (folder / "config.json").write_text("{}")
        seal(folder)
    RunFolder(tmp_path / "run", {}, resume=False, overwrite=True)
    (tmp_path / "run" / "model" / "notes.txt").write_text("ten years of work")
    with pytest.raises(ConfigurationError, match="would delete '.*notes.txt', which hfssl did not write: move it"):
        RunFolder(tmp_path / "run", {}, resume=False, overwrite=True)


def test_a_link_is_emptied_and_used_and_links_in_it_are_not_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("ten years of work")
    (tmp_path / "link").symlink_to("real")
    begun(tmp_path / "link").close()
    (tmp_path / "link" / "stages").symlink_to(tmp_path / "other")
    begun(tmp_path / "link", {"seed": 1}, overwrite=True).close()
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "real" / "stages").is_symlink()
    assert (tmp_path / "other" / "thesis.txt").exists()
    (tmp_path / "nothing").symlink_to("gone")
    with pytest.raises(ConfigurationError, match="a link to nothing"):
        RunFolder(tmp_path / "nothing", {}, resume=False, overwrite=False)


def test_one_process_a_folder(tmp_path):
    first, second = (RunFolder(tmp_path / "run", {"seed": 0}, resume=False, overwrite=False) for _ in range(2))
    first.open()
    with pytest.raises(ConfigurationError, match="Another process is working in the folder '.*run'"):
        second.open()
    first.save_inputs({})
    first.close()
    with pytest.raises(ConfigurationError, match="was empty when this run began, but now it is not"):
        second.open()
    begun(tmp_path / "run", resume=True).close()
    assert not (tmp_path / "run" / "hfssl_run.lock").exists()


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("hfssl_run.json", "", "hfssl deletes nothing in a folder that may not be its own"),
        ("settings.json", '{"schema_version": 2, "seed": 3}', "start anew with --overwrite-output-dir"),
        ("settings.json", "[1", "start anew with --overwrite-output-dir"),
        ("inputs.json", "{}", "start anew with --overwrite-output-dir"),
    ],
)
def test_a_damaged_beginning_is_one_sentence(tmp_path, name, content, remedy):
    begun(tmp_path / "run").close()
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(DamagedFile, match=f"Expected '.*{name}' as hfssl wrote it, found .*: {remedy}"):
        RunFolder(tmp_path / "run", {"seed": 0}, resume=True, overwrite=False)


@pytest.mark.parametrize("name", ["logits.npz", "done.json", "attempts.json"])
def test_a_damaged_stage_is_one_sentence_that_names_it(tmp_path, name):
    run = begun(tmp_path / "run")

    def work(folder: Path) -> StageRecord:
        write_arrays(folder / "logits.npz", {"test": np.ones(3)})
        (folder / "checkpoints").mkdir()
        return StageRecord(metrics={})

    first = run.run_once("labels_only", work)
    run.close()
    stage = tmp_path / "run" / "stages" / "labels_only"
    (stage / "checkpoints").mkdir()  # as a kill leaves them that comes after the marker
    (stage / ".model.ab12_xyz.tmp").mkdir()
    again = begun(tmp_path / "run", resume=True)
    assert again.done("labels_only") == first
    assert {path.name for path in stage.iterdir()} == {"logits.npz", "done.json", "attempts.json"}
    again.close()
    (stage / name).write_bytes((stage / name).read_bytes()[:-5])
    if name == "attempts.json":
        (stage / "done.json").unlink()
    damaged = RunFolder(tmp_path / "run", {"seed": 0}, resume=True, overwrite=False)
    with pytest.raises(DamagedFile) as raised:
        damaged.run_once("labels_only", work)
    sentence = str(damaged.explained(raised.value))
    assert f"'{stage / name}' as hfssl wrote it" in sentence
    assert f"delete '{stage}' and give --resume to run the stage again" in sentence


def test_an_unfinished_run_is_not_pushed(run):
    folder = Path(run["output_dir"])
    (folder / "results.json").unlink()
    with pytest.raises(ModelError, match="it has no results.json: finish it with hfssl fit --resume"):
        files_to_push(folder, "me/reviews")
