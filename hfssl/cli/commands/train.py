"""`recipes/train.py`: trains one method, by a YAML file and flags."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hfssl.cli.command import OUTPUT, Command, run_command, silence_libraries
from hfssl.config.methods import METHODS
from hfssl.config.parsing import early_value

__all__ = ["COMMAND", "main"]

HELP = """\
usage: python recipes/train.py --config YAML [options]
       accelerate launch recipes/train.py --config YAML [options]

Trains one method with the settings of a YAML file; options on the command line win over the file.

methods (`method: NAME` in the file, or --method NAME):
{methods}

  --method NAME --help  all options of a method: its data, model, adapter and training arguments"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `recipes/train.py` and returns the exit status: 0 done, 2 user error, 130 interrupted.

    Args:
        argv (`Sequence[str]`, *optional*): Words of the command line. Default: those of the process.
    """
    return run_command(COMMAND, sys.argv[1:] if argv is None else argv)


def run_train(argv: Sequence[str]) -> None:
    """Runs `recipes/train.py`: trains one method with the settings of a YAML file and the flags."""
    if {"-h", "--help"} & set(argv) and early_value(argv, "method") is None:
        width = max(map(len, METHODS))
        print(HELP.format(methods="\n".join(f"  {name:<{width}}  {row.summary}" for name, row in METHODS.items())))
        return

    from hfssl.cli.recipe import parse_recipe, train_recipe
    from hfssl.runtime.distributed import leave_group

    silence_libraries()
    recipe = parse_recipe(argv)
    results = train_recipe(recipe)
    OUTPUT.set(results)
    leave_group()
    if recipe.config.process_index != 0:
        return
    for split, metrics in results["metrics"].items():
        if metrics:
            numbers = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            print(f"{recipe.method} on {split}: {numbers}")
    print(f"Model:   {Path(recipe.config.output_dir) / 'model'}")


COMMAND = Command(
    "train one method with the settings of a YAML file",
    run_train,
    "Checkpoints are kept: run the same command with --resume_from_checkpoint true to go on.",
    has_log_level=False,
)
