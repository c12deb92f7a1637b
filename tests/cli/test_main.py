"""The `hfssl` command as a user runs it: help, messages, exit statuses, the closing table."""

from __future__ import annotations

import errno
import subprocess
import sys
import time

import pytest

from hfssl import __version__
from hfssl.cli.command import Command, run_command
from hfssl.cli.main import COMMANDS, main
from hfssl.config.arguments import FitArguments
from hfssl.errors import DataError, Interrupted
from hfssl.reporting.closing_table import closing_table

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


def outcome(error, capsys):
    """Exit status and stderr of a command that ends with `error`."""

    def fail(argv):
        raise error

    status = run_command(Command("", fail, "Go on with --resume."), [])
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (DataError("No column 'x'."), 2, "hfssl: error: No column 'x'."),
        (KeyboardInterrupt(), 130, "hfssl: stopped: Interrupted. Go on with --resume."),
        (Interrupted("Stopped after step 3 of 9."), 130, "hfssl: stopped: Stopped after step 3 of 9. Go on with"),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), 2, "no room on the disk for 'out/x'"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 2, "no room on the disk for the output"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 2, "does not allow access to 'out'"),
        (OSError(errno.EROFS, "Read-only file system", "out"), 2, "does not allow access to 'out'"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), 2, "'a/b' cannot be written"),
    ],
)
def test_errors_that_the_user_can_mend(error, status, expected, capsys):
    got, text = outcome(error, capsys)
    assert got == status
    assert expected in text
    assert len(text.splitlines()) == 1


def test_a_full_disk_is_found_behind_another_error(capsys):
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as cause:
            raise ValueError("could not write the table") from cause
    except ValueError as error:
        wrapped = error
    assert "no room on the disk" in outcome(wrapped, capsys)[1]


@pytest.mark.parametrize("error", [KeyError("x"), OSError(errno.ENOENT, "No such file", "x"), RuntimeError("bug")])
def test_our_own_defects_keep_their_traceback(error, capsys):
    with pytest.raises(type(error)):
        outcome(error, capsys)


def test_only_the_first_rank_complains(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert outcome(DataError("No column 'x'."), capsys) == (2, "")


def test_output_folder_below_a_file(tmp_path, tiny_backbone, capsys):
    (tmp_path / "file").write_text("x")
    table = tmp_path / "t.csv"
    table.write_text("text,label\n" + "".join(f"good movie {i},yes\nbad movie {i},no\n" for i in range(8)))
    out = tmp_path / "file" / "out"
    assert main(["fit", "--train", str(table), "--output-dir", str(out), "--backbone", str(tiny_backbone)]) == 2
    assert capsys.readouterr().err.startswith("hfssl: error: ")


RESULTS = {
    "data": {"counts": {"test": {"no": 1000, "yes": 1781}, "validation": {"no": 3, "yes": 3}}},
    "stages": [
        {
            "name": "labels_only",
            "metrics": {"validation": None, "test": {"accuracy": 0.712, "macro_f1": 0.7049, "nll": 0.6, "ece": 0.041}},
            "seconds": 64.6,
        },
        {
            "name": "self_training",
            "metrics": {"validation": None, "test": {"accuracy": 0.75, "macro_f1": 0.749, "nll": 0.5, "ece": 0.1}},
            "seconds": 120.2,
        },
    ],
    "selected_stage": "self_training",
    "final_stage": "self_training",
}


def test_closing_table():
    assert closing_table(RESULTS).splitlines() == [
        "Measured on 2,781 test rows, in points (0-100); ECE is the calibration error.",
        "",
        "                accuracy  macro-F1   ECE  seconds",
        "  labels only       71.2      70.5   4.1       65",
        "  self-trained      75.0      74.9  10.0      120  <- final",
    ]


def test_closing_table_without_any_labeled_rows_to_measure_on():
    stages = [{**stage, "metrics": {"validation": None, "test": None}} for stage in RESULTS["stages"]]
    lines = closing_table({**RESULTS, "stages": stages}).splitlines()
    assert lines[0].startswith("There were no labeled rows to measure on")
    assert lines[3].split() == ["labels", "only", "-", "-", "-", "65"]


def test_closing_table_falls_back_to_validation():
    stages = [
        {**stage, "metrics": {"validation": stage["metrics"]["test"], "test": None}} for stage in RESULTS["stages"]
    ]
    assert closing_table({**RESULTS, "stages": stages}).startswith("Measured on 6 validation rows")


def test_keywords_of_fit_are_the_flags(tmp_path):
    """The command and the function are one: what a flag sets, a keyword sets."""
    arguments = FitArguments(train="a.csv", output_dir=str(tmp_path), pretext=False, rounds=1, test="b.csv")
    assert FitArguments(**arguments.keywords()) == arguments
