"""`hfssl env`."""

from __future__ import annotations

from collections.abc import Sequence

from hfssl.cli.command import Command
from hfssl.config.parsing import dataclass_parser, parse

__all__ = ["COMMAND"]


def run_env(argv: Sequence[str]) -> None:
    """`hfssl env`: what a bug report needs to know of this machine."""
    parse([], argv, parser=dataclass_parser([], usage="hfssl env", description=f"{COMMAND.purpose}."))

    from hfssl.runtime.environment import describe

    print(describe())


COMMAND = Command("print what a bug report needs: versions and machine", run_env, "Run the same command again.")
