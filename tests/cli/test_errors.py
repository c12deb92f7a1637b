"""User errors, full disks and Ctrl-C: one line on stderr and the exit status; defects keep their traceback."""

from __future__ import annotations

import errno

import pytest

from hfssl.cli.command import Command, run_command
from hfssl.errors import DataError, Interrupted


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
