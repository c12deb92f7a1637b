"""What is deleted once a run is finished, and that all it is for still works."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hfssl.cli.main import main
from hfssl.deploy.explain import Explainer
from hfssl.deploy.push import files_to_push
from hfssl.errors import ConfigurationError, DamagedFile
from hfssl.pipeline.fit import fit
from hfssl.pipeline.presets import PRESETS
from hfssl.pipeline.tidy import KEPT, clean, tidy
from tests.helpers.fit_tiny import TINY


@pytest.fixture(scope="module")
def finished(small_table, tiny_backbone, tmp_path_factory) -> dict:
    """Options of a finished run with self-training that has kept its stages; each test gets a copy."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    options = {"train": str(small_table), "backbone": str(tiny_backbone), "output_dir": str(folder), "rounds": 1}
    options |= {"preset": "quick", "labels_per_class": 6, "pretext": False, "quiet": True, "keep_stages": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "quick", TINY)
        fit(**options)
    return options


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> dict:
    monkeypatch.setitem(PRESETS, "quick", TINY)
    shutil.copytree(finished["output_dir"], tmp_path / "run")
    return finished | {"output_dir": str(tmp_path / "run")}


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_by_default_the_models_of_the_stages_go_and_all_the_rest_works(run, tmp_path, capsys):
    folder = Path(run["output_dir"])
    assert list((folder / "stages").rglob("*.safetensors"))
    before, results = size(folder), json.loads((folder / "results.json").read_text())
    again = fit(**run | {"keep_stages": False}, resume=True)  # needs nothing but a look, and tidies
    assert again.results == results
    left = [path for path in (folder / "stages").rglob("*") if path.is_file()]
    assert left
    assert {path.name for path in left} <= KEPT
    assert size(folder) < before / 2
    assert fit(**run, resume=True).results == results
    again.model()
    (tmp_path / "new.csv").write_text("text\nthe film was great\n")
    words = [
        "--model",
        str(folder / "model"),
        "--input",
        str(tmp_path / "new.csv"),
        "--output",
        str(tmp_path / "o.csv"),
    ]
    assert main(["predict", *words, "--quiet"]) == 0
    assert "model.safetensors" in files_to_push(folder, "me/reviews", include_report=True)
    Explainer(folder)
    assert (folder / "report.html").stat().st_size > 10_000
    capsys.readouterr()


def test_clean_says_what_it_deletes(run, capsys):
    folder = Path(run["output_dir"])
    before = size(folder)
    assert main(["clean", str(folder), "--dry-run"]) == 0
    assert "would be deleted" in capsys.readouterr().out
    assert size(folder) == before
    assert main(["clean", str(folder)]) == 0
    out = capsys.readouterr().out
    freed = int(out.split(" files deleted, ")[1].removesuffix(" bytes.\n").replace(",", ""))
    assert before - size(folder) == freed > 0
    assert clean(folder).files == {}


def test_what_is_not_finished_or_not_a_run_is_not_cleaned(run, tmp_path):
    folder = Path(run["output_dir"])
    with pytest.raises(ConfigurationError, match=r"found no hfssl_run.json there"):
        clean(tmp_path)
    (folder / "model" / "config.json").write_text("{}")
    with pytest.raises(DamagedFile, match="config.json"):
        clean(folder)  # its stages may be what is left of it
    (folder / "results.json").unlink()
    with pytest.raises(ConfigurationError, match=r"found one without results.json, which needs its stages"):
        clean(folder)
    assert list((folder / "stages").rglob("*.safetensors"))


def test_links_are_not_followed(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("ten years of work")
    (tmp_path / "run" / "stages").mkdir(parents=True)
    (tmp_path / "run" / "stages" / "link").symlink_to(tmp_path / "other")
    assert list(tidy(tmp_path / "run").files) == ["stages/link"]
    assert (tmp_path / "other" / "thesis.txt").exists()
