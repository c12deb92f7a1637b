"""`hfssl export`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from hfssl.cli.command import OUTPUT, Command, folder_first, silence_libraries
from hfssl.config.arguments import ExportArguments
from hfssl.config.parsing import dataclass_parser, parse

__all__ = ["COMMAND"]


def run_export(argv: Sequence[str]) -> None:
    """Runs `hfssl export`: writes a model as ONNX and as int8, and prints the cost in accuracy."""
    usage = "hfssl export DIR [options]"
    argv = folder_first(argv)
    (arguments,) = parse([ExportArguments], argv, parser=dataclass_parser([ExportArguments], usage=usage))

    from hfssl.deploy.onnx_export import TOLERANCE, export_onnx

    silence_libraries()
    done = export_onnx(**asdict(arguments))
    OUTPUT.set(done)
    for name, size in done.sizes.items():
        print(f"{size:>14,} bytes  {done.folder / name}")
    print(
        f"On random batches of several shapes the ONNX model's logits are PyTorch's to {done.difference:.0e} of their "
        f"size (the tolerance is {TOLERANCE:.0e})."
    )
    if cost := done.cost:
        print(f"\nMeasured on {cost.rows:,} labeled rows of {cost.table}, in points (0-100).\n")
        print("           accuracy  labels changed")
        for name, value in cost.accuracy.items():
            changed = f"{100 * cost.changed[name]:.1f}" if name in cost.changed else "-"
            print(f"  {name:<7}  {100 * value:>8.1f}  {changed:>14}")
    elif arguments.int8:
        print("What int8 costs in accuracy was not measured: there are no labeled rows. Give a table with --data.")


COMMAND = Command(
    "write a model as ONNX and int8, checked against PyTorch",
    run_export,
    "Nothing was written; run the same command again.",
)
