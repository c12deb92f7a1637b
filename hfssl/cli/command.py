"""The one `main()` behind the `hfssl` command and `recipes/train.py`: parse, call one function, print one summary.

What goes wrong ends here too: an error that the user can mend is one sentence on stderr and exit status 2, Ctrl-C is
130 with the way to go on. Only defects of our own show a traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hfssl.cli.errors import INTERRUPTED, USER_ERROR, WARNINGS, complain, storage_problem
from hfssl.errors import ConfigurationError, HfsslError

__all__ = ["Verb", "main"]


@dataclass(frozen=True)
class Verb:
    """What the command line can do: `run(argv)` does it, `go_on` says how to continue after it was stopped."""

    purpose: str
    run: Callable[[Sequence[str]], None]
    go_on: str


def main(verb: Verb, argv: Sequence[str]) -> int:
    """Runs a verb with its options; returns the exit status: 0 done, 2 user error, 130 interrupted."""
    logging.getLogger("hfssl").addHandler(WARNINGS)
    try:
        verb.run(argv)
    except KeyboardInterrupt as stop:
        complain(f"{str(stop) or 'Interrupted.'} {verb.go_on}", "stopped")
        return INTERRUPTED
    except ConfigurationError as error:
        for problem in error.problems:
            complain(problem, "error")
        return USER_ERROR
    except HfsslError as error:
        complain(str(error), "error")
        return USER_ERROR
    except Exception as error:
        sentence = storage_problem(error, verb.go_on)
        if sentence is None:
            raise
        complain(sentence, "error")
        return USER_ERROR
    return 0


def folder_first(argv: Sequence[str]) -> Sequence[str]:
    """The verb's first word names a folder without a flag: `hfssl push DIR`."""
    return ["--folder", *argv] if argv and not argv[0].startswith("-") else argv


def silence_libraries() -> None:
    """Turns off the progress bars of loading and mapping: a user wants to see the bars of the work, which are ours."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
