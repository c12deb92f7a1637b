"""What a stage leaves in `done.json`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hfssl.errors import ConfigurationError
from hfssl.pipeline.fit import fit
from hfssl.pipeline.presets import PRESETS
from tests.helpers.fit_tiny import TINY


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


def test_a_stage_record_that_cannot_be_read_is_one_sentence(run):
    marker = Path(run["output_dir"]) / "stages/labels_only/done.json"
    record = json.loads(marker.read_text())
    for content in ('{"metr', json.dumps(record | {"other": 1})):
        marker.write_text(content)
        with pytest.raises(ConfigurationError, match="Expected the record of the stage 'labels_only' in .*: delete"):
            fit(**run, resume=True)
