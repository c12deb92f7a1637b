"""The `hfssl` command as a user runs it: help, messages, exit statuses."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from hfssl import __version__
from hfssl.cli.main import COMMANDS, main

HELP_SECONDS = 2.0
HELPS = [["--help"], *([name, "--help"] for name in COMMANDS)]
SLOW_MACHINE = 3  # the machine may be busy with other things


def hfssl(*argv, **kwargs):
    return subprocess.run([sys.executable, "-m", "hfssl.cli.main", *argv], capture_output=True, text=True, **kwargs)


@pytest.mark.parametrize("argv", HELPS, ids=" ".join)
def test_help_answers_at_once(argv):
    started = time.perf_counter()
    shown = hfssl(*argv, check=True)
    assert time.perf_counter() - started < HELP_SECONDS * SLOW_MACHINE
    assert shown.stdout.startswith("usage: hfssl")
    assert shown.stderr == ""


@pytest.mark.parametrize("argv", [*HELPS, ["fit", "--seed", "x"]], ids=" ".join)
def test_nothing_heavy_is_imported_before_work_begins(argv):
    code = (
        "import sys\n"
        "from hfssl.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'sklearn', 'matplotlib', 'gradio'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version():
    assert hfssl("--version", check=True).stdout == f"hfssl {__version__}\n"


def test_unknown_command(capsys):
    assert main(["fti"]) == 2
    expected = f"hfssl: error: expected one of {', '.join(COMMANDS)}; got 'fti'. Did you mean 'fit'?\n"
    assert capsys.readouterr().err == expected


def test_all_configuration_errors_at_once(capsys):
    assert main(["fit", "--trian", "a.csv", "--preset", "quik", "--seed", "one"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("hfssl: error: ") for line in lines)


def test_missing_table_is_one_sentence_without_traceback(tmp_path, tiny_backbone):
    table, out = str(tmp_path / "none.csv"), str(tmp_path / "out")
    done = hfssl("fit", "--train", table, "--output-dir", out, "--backbone", str(tiny_backbone))
    assert done.returncode == 2
    assert done.stderr.startswith("hfssl: error: ")
    assert "none.csv" in done.stderr
    assert "Traceback" not in done.stderr


def test_output_folder_below_a_file(tmp_path, tiny_backbone, capsys):
    (tmp_path / "file").write_text("x")
    table = tmp_path / "t.csv"
    table.write_text("text,label\n" + "".join(f"good movie {i},yes\nbad movie {i},no\n" for i in range(8)))
    out = tmp_path / "file" / "out"
    assert main(["fit", "--train", str(table), "--output-dir", str(out), "--backbone", str(tiny_backbone)]) == 2
    assert capsys.readouterr().err.startswith("hfssl: error: ")
