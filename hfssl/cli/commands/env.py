"""`hfssl env`."""

from __future__ import annotations

from collections.abc import Sequence

from hfssl.cli.command import OUTPUT, Command
from hfssl.config.parsing import dataclass_parser, parse

__all__ = ["COMMAND"]


def run_env(argv: Sequence[str]) -> None:
    """Runs `hfssl env`: prints versions, machine, threads and devices, for a bug report."""
    parse([], argv, parser=dataclass_parser([], usage="hfssl env"))

    from hfssl.runtime.environment import environment, in_markdown

    facts = environment()
    OUTPUT.set(facts)
    print(in_markdown(facts))


COMMAND = Command("print versions, machine and devices for a bug report", run_env, "Nothing was changed.")
