"""A method is a file, a row and a recipe: a toy method gets everything else from the registry.

A pairwise selection of its cases of the behaviour matrix runs by default, all of them with `--matrix`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hfssl.cli.commands.train import main
from hfssl.config.methods import METHODS, methods_table
from tests.helpers import ROOT
from tests.helpers.behaviours import Bench, check
from tests.helpers.matrix import select
from tests.helpers.toy_method import ROW

RECIPE = """\
method: toy
train: reviews.csv
labels_per_class: 4
output_dir: runs/toy
max_steps: 3
max_length: 16
per_device_train_batch_size: 4
lambda_u: 0.5
"""
SCRIPT = """\
import sys

from hfssl.cli.commands.train import main
from hfssl.config.methods import METHODS
from tests.helpers.toy_method import ROW

METHODS["toy"] = ROW
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """The registry with one more row; a folder with its recipe and a script that registers it."""
    monkeypatch.setitem(METHODS, "toy", ROW)
    (tmp_path / "toy.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    lines = [f"a {('good', 'bad')[i % 2]} film number {i},{('praise', 'blame')[i % 2]}" for i in range(60)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return tmp_path


def run(folder: Path, *words: str) -> str:
    """Standard output of a command in `folder`."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        options = metafunc.config.option
        cases = select({"toy": ROW}, whole=options.matrix, part=options.shard)
        metafunc.parametrize("case", cases, ids=[case.name for case in cases])


def test_it_passes_the_matrix(case, toy, tiny_backbone, tmp_path):
    check(case, Bench(ROW, tiny_backbone, tmp_path, [toy / "toy.yaml"]))


def test_a_script_with_its_row_trains_it_under_accelerate_launch(toy, tiny_backbone):
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "train.py", "--config", "toy.yaml"]
    out = run(toy, *launch, "--backbone", str(tiny_backbone), "--use_cpu", "true")
    assert "toy on test: accuracy " in out
    results = json.loads((toy / "runs" / "toy" / "results.json").read_text(encoding="utf-8"))
    assert results["method"] == "toy"
    assert results["metrics"]["test"]["accuracy"] > 0
    assert (toy / "runs" / "toy" / "model" / "model.safetensors").is_file()


def test_help_and_the_documentation_s_table_list_it(toy, capsys):
    assert re.search(rf"^  toy +{re.escape(ROW.summary)}$", run(toy, "train.py", "--help"), flags=re.M)
    with pytest.raises(SystemExit):
        main(["--method", "toy", "--help"])
    assert "--lambda_u" in capsys.readouterr().out
    assert f"| `toy` | `EntropyTrainer` | classifier | labeled, unlabeled | {ROW.summary} |" in methods_table()
