"""`hfssl clean`."""

from __future__ import annotations

from collections.abc import Sequence

from hfssl.cli.command import OUTPUT, Command, folder_first
from hfssl.config.arguments import CleanArguments
from hfssl.config.parsing import dataclass_parser, parse

__all__ = ["COMMAND"]


def run_clean(argv: Sequence[str]) -> None:
    """Runs `hfssl clean`: deletes what a finished run needs no more."""
    usage = "hfssl clean DIR [options]"
    argv = folder_first(argv)
    (arguments,) = parse([CleanArguments], argv, parser=dataclass_parser([CleanArguments], usage=usage))

    from hfssl.pipeline.tidy import clean

    done = clean(arguments.folder, dry_run=arguments.dry_run)
    OUTPUT.set({"files": done.files, "bytes": done.bytes, "deleted": not arguments.dry_run})
    for name, size in done.files.items():
        print(f"{size:>14,} bytes  {name}")
    what = "would be deleted" if arguments.dry_run else "deleted"
    print(f"{len(done.files):,} files {what}, {done.bytes:,} bytes.")


COMMAND = Command(
    "delete the models of a finished run's stages, which nothing needs any more",
    run_clean,
    "The run itself stays whole: run the same command again.",
)
