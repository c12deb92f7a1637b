"""`hfssl views`."""

from __future__ import annotations

from collections.abc import Sequence

from hfssl.cli.command import OUTPUT, Command
from hfssl.config.arguments import ViewsArguments
from hfssl.config.parsing import dataclass_parser, parse

__all__ = ["COMMAND"]


def run_views(argv: Sequence[str]) -> None:
    """Runs `hfssl views`: prints rows of a table and what views make of them."""
    usage = "hfssl views --input TABLE [options]"
    (arguments,) = parse([ViewsArguments], argv, parser=dataclass_parser([ViewsArguments], usage=usage))

    from hfssl.deploy.views import view_rows

    names = [name.strip() for name in arguments.views.split(",") if name.strip()]
    options = {name: getattr(arguments, name) for name in ("text_column", "rows", "backbone", "seed")}
    shown = view_rows(arguments.input, names, **options)
    OUTPUT.set({"rows": shown})
    width = max(len(name) for name in ("text", *names))
    print("\n\n".join("\n".join(f"{name:<{width}}  {text}" for name, text in row.items()) for row in shown))


COMMAND = Command("show what the views of consistency training make of rows", run_views, "Nothing was changed.")
