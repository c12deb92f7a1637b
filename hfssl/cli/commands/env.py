"""`hfssl env`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hfssl.cli.command import Verb
from hfssl.config.parsing import dataclass_parser, parse

__all__ = ["ENV"]


@dataclass
class EnvArguments:
    """`hfssl env` has no options of its own."""


def run_env(argv: Sequence[str]) -> None:
    """`hfssl env`: versions, machine, threads and devices, for a bug report."""
    parse([EnvArguments], argv, parser=dataclass_parser([EnvArguments], usage="hfssl env"))

    from hfssl.runtime.environment import describe

    print(describe())


ENV = Verb("print versions, machine and devices for a bug report", run_env, "Nothing was changed.")
