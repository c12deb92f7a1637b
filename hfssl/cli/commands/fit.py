"""`hfssl fit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hfssl.cli.command import OUTPUT, Command, silence_libraries
from hfssl.cli.errors import BELOW_LIMIT
from hfssl.config.arguments import FitArguments
from hfssl.config.parsing import dataclass_parser, parse

__all__ = ["COMMAND"]


def run_fit(argv: Sequence[str]) -> int | None:
    """Runs `hfssl fit`: the main job from a table to a saved, explained model."""
    usage = "hfssl fit --train TABLE --output-dir DIR [options]"
    (arguments,) = parse([FitArguments], argv, parser=dataclass_parser([FitArguments], usage=usage))

    from hfssl.pipeline.fit import fit
    from hfssl.reporting.closing_table import closing_table
    from hfssl.reporting.good_enough import closing_lines
    from hfssl.reporting.results import gains_row_by_row
    from hfssl.reporting.standing import standing_sentence

    silence_libraries()
    results = fit(**arguments.keywords()).results
    OUTPUT.set(results)
    print()
    print(closing_table(results))
    print()
    if row_by_row := gains_row_by_row(results):
        print(row_by_row.replace("−", "-"))  # not every terminal has the real minus sign
    for line in closing_lines(results):
        print(line.replace("−", "-"))
    print()
    folder = Path(arguments.output_dir)
    print(f"Report:  {folder / 'report.html'}")
    print(f"Model:   {folder / 'model'}")
    print(f"Use it:  {_predict_command(arguments)}")
    if arguments.fail_below_baseline and standing_sentence(results) is not None:
        return BELOW_LIMIT
    return None


def _predict_command(arguments: FitArguments) -> str:
    column = "" if arguments.text_column == "text" else f" --text-column {arguments.text_column}"
    if arguments.text_pair_column:
        column += f" --text-pair-column {arguments.text_pair_column}"
    return f"hfssl predict --model {Path(arguments.output_dir) / 'model'} --input new.csv --output out.csv{column}"


COMMAND = Command(
    "from a table with a few labels to a trained, explained model",
    run_fit,
    "Finished work is kept: run the same command with --resume to go on.",
)
