"""`hfssl demo`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec

from hfssl.cli.command import Command, folder_first, silence_libraries
from hfssl.config.arguments import DemoArguments
from hfssl.config.parsing import dataclass_parser, parse
from hfssl.errors import ConfigurationError

__all__ = ["COMMAND"]


def run_demo(argv: Sequence[str]) -> None:
    """Runs `hfssl demo`: serves a page on which to try a model, until Ctrl-C."""
    usage = "hfssl demo DIR [options]"
    argv = folder_first(argv)
    (arguments,) = parse([DemoArguments], argv, parser=dataclass_parser([DemoArguments], usage=usage))
    if find_spec("gradio") is None:
        raise ConfigurationError(
            'Expected the package gradio, which draws the page, but it is not installed: pip install "hfssl[demo]".'
        )

    # Gradio reads the name of its folder for temporary files once, when it is imported.
    with tempfile.TemporaryDirectory(prefix="hfssl-demo-", ignore_cleanup_errors=True) as scratch:
        os.environ["GRADIO_TEMP_DIR"] = scratch
        try:
            from hfssl.deploy.demo import serve

            silence_libraries()
            serve(**asdict(arguments), ready=lambda url: print(f"Page:  {url}  (Ctrl-C closes it)", flush=True))
        finally:
            del os.environ["GRADIO_TEMP_DIR"]


COMMAND = Command("open a page on which to try a model", run_demo, "The page was not opened.")
