"""`recipes/train.py --help` as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from hfssl.cli.commands.train import main
from hfssl.config.methods import METHODS
from tests.helpers import ROOT

HELP_SECONDS, SLOW_MACHINE = 2.0, 3  # the machine may be busy with other things


def test_help_lists_every_method_at_once():
    started = time.perf_counter()
    command = [sys.executable, str(ROOT / "recipes/train.py"), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert time.perf_counter() - started < HELP_SECONDS * SLOW_MACHINE
    for name, row in METHODS.items():
        assert re.search(rf"^  {name} +{re.escape(row.summary)}$", shown.stdout, flags=re.M)
    assert shown.stderr == ""


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom hfssl.cli.commands.train import main\nmain(['--help'])\n"
        "sys.exit(', '.join(sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["--method", "contrastive"], ["--config", "recipes/contrastive/trec6.yaml"]])
def test_help_of_a_method_lists_its_options(words, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as done:
        main([*words, "--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    assert "--contrastive_temperature" in shown
    assert "--lambda_u" not in shown


def test_an_unknown_method_is_one_line(capsys):
    assert main(["--method", "self-trainin"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"hfssl: error: method: expected one of {', '.join(METHODS)}; ")
    assert len(error.splitlines()) == 1


def test_a_wrong_import_path_leaves_nothing_behind(tiny_backbone, table, tmp_path, monkeypatch, capsys):
    row = replace(METHODS["supervised"], trainer="hfssl.methods.supervised:SupervisedTrainers")
    monkeypatch.setitem(METHODS, "mine", row)
    words = ["--method", "mine", "--train", str(table), "--backbone", str(tiny_backbone)]
    assert main([*words, "--output_dir", str(tmp_path / "run")]) == 2
    assert "Did you mean 'SupervisedTrainer'?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
