"""`Command`: one word of the command line and its function, and the helpers that the commands share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hfssl.cli.errors import INTERRUPTED, USER_ERROR, WARNINGS, complain, storage_problem
from hfssl.cli.output import Output, common_options
from hfssl.errors import ConfigurationError, HfsslError
from hfssl.runtime.signals import terminated_like_ctrl_c

__all__ = ["OUTPUT", "Command", "folder_first", "run_command", "silence_libraries"]

OUTPUT = Output()
"""What the running command has to say to a program; see `--json`."""


@dataclass(frozen=True)
class Command:
    """Describes one command of the command line.

    Args:
        purpose (`str`): One line for `hfssl --help`.
        run (`Callable[[Sequence[str]], int | None]`): Function that parses the words after the command's name, calls
            one function and prints one summary; returns an exit status, `None` for 0.
        resume_hint (`str`): One sentence on how to continue after an interruption.
        has_log_level (`bool`, defaults to `True`): Whether `--log-level` is hfssl's own and not that of transformers.
    """

    purpose: str
    run: Callable[[Sequence[str]], int | None]
    resume_hint: str
    has_log_level: bool = True


def run_command(command: Command, argv: Sequence[str]) -> int:
    """Runs a command and returns the exit status: 0 done, 2 user error, 3 below a limit, 130 interrupted.

    An error that the user can fix becomes one line on stderr. A defect of hfssl keeps its traceback.

    Args:
        command (`Command`): The command.
        argv (`Sequence[str]`): Words after the command's name.
    """
    logging.getLogger("hfssl").addHandler(WARNINGS)
    try:
        argv, json, level = common_options(argv, levels=command.has_log_level)
    except ConfigurationError as error:
        return _refused(error.problems, OUTPUT)
    _tell(level)
    OUTPUT.json, OUTPUT.value = json, None
    with OUTPUT.printing(), terminated_like_ctrl_c():
        return _run(command, argv)


def _run(command: Command, argv: Sequence[str]) -> int:
    try:
        return command.run(argv) or 0
    except KeyboardInterrupt as stop:
        sentence = f"{str(stop) or 'Interrupted.'} {command.resume_hint}"
        complain(sentence, "stopped")
        OUTPUT.set({"stopped": sentence})
        return INTERRUPTED
    except ConfigurationError as error:
        return _refused(error.problems, OUTPUT)
    except HfsslError as error:
        return _refused([str(error)], OUTPUT)
    except Exception as error:
        sentence = storage_problem(error, command.resume_hint)
        if sentence is None:
            raise
        return _refused([sentence], OUTPUT)


def _refused(problems: Sequence[str], output: Output) -> int:
    for problem in problems:
        complain(problem, "error")
    output.set({"errors": list(problems)})
    return USER_ERROR


def _tell(level: int | None) -> None:
    """Sets how much hfssl and transformers log, where the user has asked for a level."""
    if level is not None:
        logging.getLogger("hfssl").setLevel(level)
        WARNINGS.setLevel(level)


def folder_first(argv: Sequence[str]) -> Sequence[str]:
    """Adds the flag `--folder` where the first word is a folder without a flag: `hfssl push DIR`.

    Args:
        argv (`Sequence[str]`): Words after the command's name.
    """
    return ["--folder", *argv] if argv and not argv[0].startswith("-") else argv


def silence_libraries() -> None:
    """Turns off the libraries' progress bars of loading and mapping; hfssl's own bars stay."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
