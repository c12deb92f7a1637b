"""The folder of a recipe's run: it goes on with more steps, not with another input; other folders are left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hfssl.cli.commands.train import main
from tests.helpers.tiny_tables import rows, write


@pytest.fixture
def words(tiny_backbone, tmp_path) -> list[str]:
    train = write(tmp_path / "train.csv", rows(each=8))
    found = ["--method", "supervised", "--train", str(train), "--backbone", str(tiny_backbone), "--max_length", "32"]
    found += ["--output_dir", str(tmp_path / "run"), "--save_strategy", "steps", "--save_steps", "2"]
    return [*found, "--disable_tqdm", "true", "--report_to", "none"]


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def test_a_finished_run_goes_on_when_it_gets_more_steps(words, tmp_path, capsys):
    run = tmp_path / "run"
    assert main([*words, "--max_steps", "2"]) == 0
    before = (run / "model" / "model.safetensors").read_bytes()
    assert checkpoints(run) == ["checkpoint-2"]
    assert main([*words, "--max_steps", "4"]) == 2  # not without being asked to
    assert "already holds a run; add --resume_from_checkpoint true" in capsys.readouterr().err
    assert main([*words, "--max_steps", "4", "--resume_from_checkpoint", "true", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "supervised"
    assert checkpoints(run) == ["checkpoint-2", "checkpoint-4"]
    assert (run / "model" / "model.safetensors").read_bytes() != before
    write(tmp_path / "train.csv", rows(each=9))
    assert main([*words, "--max_steps", "4", "--resume_from_checkpoint", "true"]) == 2
    error = capsys.readouterr().err
    assert "train.csv' has changed since" in error
    assert "start again in another folder" in error


@pytest.mark.parametrize("more", [[], ["--resume_from_checkpoint", "true"]])
def test_a_folder_with_other_files_is_left_alone(words, tmp_path, capsys, more):
    (tmp_path / "run" / "splits").mkdir(parents=True)
    (tmp_path / "run" / "results.json").write_text("{}")
    assert main([*words, *more]) == 2
    assert "is not empty and holds no run of a recipe (no hfssl_recipe.json)" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["results.json", "splits"]
