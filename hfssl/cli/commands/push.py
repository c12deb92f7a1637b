"""`hfssl push`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from hfssl.cli.command import OUTPUT, Command, folder_first
from hfssl.config.arguments import PushArguments
from hfssl.config.parsing import dataclass_parser, parse

__all__ = ["COMMAND"]


def run_push(argv: Sequence[str]) -> None:
    """Runs `hfssl push`: pushes a run to the Hub, in one commit."""
    usage = "hfssl push DIR --repo-id ID [options]"
    argv = folder_first(argv)
    (arguments,) = parse([PushArguments], argv, parser=dataclass_parser([PushArguments], usage=usage))

    from hfssl.deploy.push import push

    done = push(**{**asdict(arguments), "private": arguments.private or None})
    OUTPUT.set(done)
    for name, size in done.files.items():
        print(f"{size:>14,} bytes  {name}")
    if done.url is None:
        print(f"Nothing was sent; {len(done.files)} files would go to {arguments.repo_id}.")
    else:
        print(f"{len(done.files)} files pushed: {done.url}")


COMMAND = Command(
    "put a run's model, adapter, card and results on the Hub",
    run_push,
    "A push is one commit: it is there as a whole or not at all; run the same command again.",
)
