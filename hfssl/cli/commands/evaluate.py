"""`hfssl evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from hfssl.cli.command import OUTPUT, Command, silence_libraries
from hfssl.cli.errors import BELOW_LIMIT
from hfssl.config.arguments import EvaluateArguments
from hfssl.config.parsing import dataclass_parser, parse

if TYPE_CHECKING:
    from hfssl.deploy.evaluate import Evaluation

__all__ = ["COMMAND"]

OTHERS = (("macro_f1", "Macro-F1", "%", 100), ("ece", "ECE", "%", 100), ("nll", "NLL", "nats", 1))


def run_evaluate(argv: Sequence[str]) -> int:
    """Runs `hfssl evaluate`; returns exit status 3 if the accuracy is below `--min-accuracy`, else 0."""
    usage = "hfssl evaluate DIR --data FILE [options]"
    argv = ["--model", *argv] if argv and not argv[0].startswith("-") else argv
    (arguments,) = parse([EvaluateArguments], argv, parser=dataclass_parser([EvaluateArguments], usage=usage))
    options = asdict(arguments)
    least = options.pop("min_accuracy")

    from hfssl.deploy.evaluate import evaluate

    silence_libraries()
    found = evaluate(**options)
    OUTPUT.set(found)
    _show(found, arguments.slice_column)
    if least is not None and found.metrics["accuracy"] < least:
        print(f"The accuracy is below --min-accuracy {least:g}: exit status {BELOW_LIMIT}.")
        return BELOW_LIMIT
    return 0


def _show(found: Evaluation, slice_column: str | None) -> None:
    low, high = found.intervals["accuracy"]
    print(
        f"Accuracy {100 * found.metrics['accuracy']:.1f} % of {found.rows:,} rows (95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f}); always '{found.largest_class}': {100 * found.largest_class_accuracy:.1f} %."
    )
    for name, title, unit, factor in OTHERS:
        low, high = found.intervals[name]
        print(f"{title} {factor * found.metrics[name]:.3g} {unit} ({factor * low:.3g} to {factor * high:.3g})")
    for one in found.classes:
        print(f"  {one.name}: F1 {100 * one.f1:.1f} %, recall {100 * one.recall:.1f} % of {one.rows:,} rows")
    for one in found.slices:
        low, high = (100 * bound for bound in one.interval)
        print(
            f"  {slice_column}={one.value}: {100 * one.accuracy:.1f} % of {one.rows:,} rows ({low:.1f} to {high:.1f})"
        )
    if found.without_label or found.without_text:
        print(
            f"Left out: {found.without_label:,} rows without a label, {found.without_text:,} labeled rows without a "
            "text."
        )


COMMAND = Command("measure a trained model on a labeled table", run_evaluate, "Nothing was written.")
