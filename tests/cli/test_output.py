"""`--json` and `--log-level`: one object on stdout, whatever happens, and all the rest on stderr."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hfssl.cli.command import OUTPUT, Command, run_command
from hfssl.cli.output import common_options
from hfssl.errors import ConfigurationError, DataError
from hfssl.runtime.signals import stopping_signals


@dataclass(frozen=True)
class Found:
    rows: int
    folder: Path
    probs: np.ndarray
    missing: float = float("nan")


def command(work) -> Command:
    def run(argv: Sequence[str]) -> int | None:
        sys.stdout.write("a line for people\n")
        return work(argv)

    return Command("does something", run, "Go on.")


def test_one_object_on_stdout_and_the_rest_on_stderr(capsys):
    found = Found(3, Path("runs/a"), np.array([0.25, np.inf]))
    assert run_command(command(lambda argv: OUTPUT.set(found)), ["--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"rows": 3, "folder": "runs/a", "probs": [0.25, None], "missing": None}
    assert printed.out.count("\n") == 1
    assert "a line for people" in printed.err


def test_without_it_people_read_stdout(capsys):
    assert run_command(command(lambda argv: OUTPUT.set({"rows": 3})), []) == 0
    assert capsys.readouterr().out == "a line for people\n"


@pytest.mark.parametrize(
    ("error", "status", "found"),
    [
        (ConfigurationError(["First.", "Second."]), 2, {"errors": ["First.", "Second."]}),
        (DataError("No rows."), 2, {"errors": ["No rows."]}),
        (KeyboardInterrupt("Stopped."), 130, {"stopped": "Stopped. Go on."}),
    ],
)
def test_errors_are_an_object_too(capsys, error, status, found):
    def fail(argv):
        raise error

    assert run_command(command(fail), ["--json"]) == status
    printed = capsys.readouterr()
    assert json.loads(printed.out) == found
    assert "hfssl: " in printed.err


def test_the_words_of_the_command_stay_in_order():
    assert common_options(["a", "--log-level=debug", "--x", "1", "--json"]) == (["a", "--x", "1"], True, logging.DEBUG)
    assert common_options(["a"]) == (["a"], False, None)
    assert common_options(["--log_level", "passive"], levels=False) == (["--log_level", "passive"], False, None)


@pytest.mark.parametrize(("words", "got"), [(["--log-level", "loud"], "'loud'"), (["--log-level"], "''")])
def test_a_level_that_there_is_not(capsys, words, got):
    assert run_command(command(lambda argv: None), words) == 2
    assert f"--log-level: expected one of debug, info, warning, error; got {got}" in capsys.readouterr().err


def test_the_level_decides_what_hfssl_tells(capsys):
    logger = logging.getLogger("hfssl.somewhere")

    def tell(argv):
        logger.info("read 3 rows")
        logger.warning("odd rows")

    try:
        run_command(command(tell), ["--log-level", "error"])
        assert "odd rows" not in capsys.readouterr().err
        run_command(command(tell), ["--log-level", "info"])
        assert "hfssl: info: read 3 rows\nhfssl: warning: odd rows\n" in capsys.readouterr().err
    finally:
        run_command(command(lambda argv: None), ["--log-level", "warning"])


def test_sigterm_is_like_ctrl_c(capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert run_command(command(lambda argv: signal.raise_signal(signal.SIGTERM)), []) == 130
    assert "hfssl: stopped: Interrupted. Go on." in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_a_run_of_several_ranks_sigterm_belongs_to_the_launcher(monkeypatch):
    assert stopping_signals() == (signal.SIGINT, signal.SIGTERM)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert stopping_signals() == (signal.SIGINT,)
