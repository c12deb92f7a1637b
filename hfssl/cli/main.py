"""`hfssl COMMAND`: finds the command and runs it. Nothing heavy is imported before work begins."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from hfssl import __version__
from hfssl.cli.command import Command, run_command
from hfssl.cli.errors import USER_ERROR
from hfssl.cli.output import HELP as COMMON
from hfssl.errors import near_matches

__all__ = ["COMMANDS", "load_command", "main"]

COMMANDS = ("fit", "predict", "evaluate", "push", "export", "demo", "clean", "views", "env")
"""The first words of the command line, in the order of `hfssl --help`; each has a module in `hfssl.cli.commands`."""

HELP = """\
usage: hfssl COMMAND [options]

A few labels and a lot of unlabeled data in, a small, trustworthy Hugging Face model out,
and proof of whether the unlabeled data helped.

commands:
{commands}

  hfssl COMMAND --help  all options of a command
  hfssl --version

first steps:
  hfssl fit --train reviews.csv --text-column text --label-column sentiment --output-dir runs/reviews
  hfssl predict --model runs/reviews/model --input new.csv --output predictions.csv
  hfssl demo runs/reviews

Rows of reviews.csv without a label are the unlabeled data.

{common}"""


def load_command(name: str) -> Command:
    """Returns the `COMMAND` of the module `hfssl.cli.commands.NAME`.

    Args:
        name (`str`): One of `COMMANDS`.
    """
    return import_module(f"hfssl.cli.commands.{name}").COMMAND


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `hfssl ARGV...` and returns the exit status: 0 done, 2 user error, 130 interrupted.

    Args:
        argv (`Sequence[str]`, *optional*): Words of the command line. Default: those of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(
            HELP.format(
                common=COMMON, commands="\n".join(f"  {name:<10}  {load_command(name).purpose}" for name in COMMANDS)
            )
        )
        return 0
    if words[0] == "--version":
        print(f"hfssl {__version__}")
        return 0
    if words[0] not in COMMANDS:
        hint = near_matches(words[0], list(COMMANDS))
        print(f"hfssl: error: expected one of {', '.join(COMMANDS)}; got '{words[0]}'.{hint}", file=sys.stderr)
        return USER_ERROR
    return run_command(load_command(words[0]), words[1:])


if __name__ == "__main__":
    sys.exit(main())
