"""`Command`: one word of the command line and its function, and the helpers that the commands share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hfssl.cli.errors import INTERRUPTED, USER_ERROR, WARNINGS, complain, storage_problem
from hfssl.errors import ConfigurationError, HfsslError

__all__ = ["Command", "folder_first", "run_command", "silence_libraries"]


@dataclass(frozen=True)
class Command:
    """Describes one command of the command line.

    Args:
        purpose (`str`): One line for `hfssl --help`.
        run (`Callable[[Sequence[str]], int | None]`): Function that parses the words after the command's name, calls
            one function and prints one summary; returns an exit status, `None` for 0.
        resume_hint (`str`): One sentence on how to continue after an interruption.
    """

    purpose: str
    run: Callable[[Sequence[str]], int | None]
    resume_hint: str


def run_command(command: Command, argv: Sequence[str]) -> int:
    """Runs a command and returns the exit status: 0 done, 2 user error, 3 below a limit, 130 interrupted.

    An error that the user can fix becomes one line on stderr. A defect of hfssl keeps its traceback.

    Args:
        command (`Command`): The command.
        argv (`Sequence[str]`): Words after the command's name.
    """
    logging.getLogger("hfssl").addHandler(WARNINGS)
    try:
        return command.run(argv) or 0
    except KeyboardInterrupt as stop:
        complain(f"{str(stop) or 'Interrupted.'} {command.resume_hint}", "stopped")
        return INTERRUPTED
    except ConfigurationError as error:
        for problem in error.problems:
            complain(problem, "error")
        return USER_ERROR
    except HfsslError as error:
        complain(str(error), "error")
        return USER_ERROR
    except Exception as error:
        sentence = storage_problem(error, command.resume_hint)
        if sentence is None:
            raise
        complain(sentence, "error")
        return USER_ERROR


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
