"""What a stage leaves in `done.json`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hfssl.errors import DamagedFile
from hfssl.pipeline.fit import fit
from hfssl.pipeline.presets import PRESETS
from hfssl.runtime.files import read_checked_json, write_checked_json
from tests.helpers.fit_tiny import TINY


@pytest.fixture(scope="module")
def finished(small_table, tiny_backbone, tmp_path_factory) -> dict:
    """Options of a finished run of labels only, of which each test gets a copy."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    options = {"train": str(small_table), "backbone": str(tiny_backbone), "output_dir": str(folder)}
    options |= {"preset": "quick", "labels_per_class": 6, "rounds": 0, "cross_fit": 0, "pretext": False}
    options |= {"quiet": True, "keep_stages": True}
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


def test_a_stage_record_that_cannot_be_read_is_one_sentence(run):
    marker = Path(run["output_dir"]) / "stages/labels_only/done.json"
    found = read_checked_json(marker)
    (marker.parents[2] / "results.json").unlink()  # a finished run reads no record again
    for content in (marker.read_bytes()[:20], found | {"other": 1}):
        if isinstance(content, bytes):
            marker.write_bytes(content)
        else:
            write_checked_json(marker, content)
        with pytest.raises(
            DamagedFile, match="Expected .*done.json' as hfssl wrote it, found .*: delete '.*labels_only'"
        ):
            fit(**run, resume=True)
