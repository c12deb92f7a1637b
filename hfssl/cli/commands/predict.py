"""`hfssl predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from hfssl.cli.command import OUTPUT, Command, silence_libraries
from hfssl.config.arguments import PredictArguments
from hfssl.config.parsing import dataclass_parser, parse

__all__ = ["COMMAND"]


def run_predict(argv: Sequence[str]) -> None:
    """Runs `hfssl predict`: writes a table with additional columns for the predictions."""
    usage = "hfssl predict --model DIR --input FILE --output FILE [options]"
    (arguments,) = parse([PredictArguments], argv, parser=dataclass_parser([PredictArguments], usage=usage))

    from hfssl.deploy.predict import predict

    silence_libraries()
    summary = predict(**asdict(arguments))
    OUTPUT.set(summary)
    print(f"{summary.rows:,} rows written to {arguments.output}; new columns: {', '.join(summary.columns)}.")
    if summary.empty:
        have = "row has" if summary.empty == 1 else "rows have"
        print(f"{summary.empty:,} {have} no text; the prediction is left empty there.")
    if summary.replaced:
        cells = "cell holds" if summary.replaced == 1 else "cells hold"
        print(f"{summary.replaced:,} {cells} characters that the file cannot; they are replaced there.")
    if summary.neutralized:
        cells = "cell" if summary.neutralized == 1 else "cells"
        print(f"{summary.neutralized:,} {cells} got an apostrophe, so that no spreadsheet runs them as a formula.")


COMMAND = Command("label new rows with a trained model", run_predict, "No output was written.")
