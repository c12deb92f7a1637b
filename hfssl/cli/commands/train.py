"""`recipes/train.py`: one method by a YAML file and flags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hfssl.cli.command import Verb, silence_libraries

__all__ = ["TRAIN"]


def run_method(argv: Sequence[str]) -> None:
    """`recipes/train.py`: trains one method as a YAML file and the flags say."""
    from hfssl.cli.recipe import parse_recipe, train_recipe
    from hfssl.runtime.distributed import leave_group

    silence_libraries()
    recipe = parse_recipe(argv)
    results = train_recipe(recipe)
    leave_group()
    if recipe.config.process_index != 0:
        return
    for split, metrics in results["metrics"].items():
        if metrics:
            numbers = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            print(f"{recipe.method} on {split}: {numbers}")
    print(f"Model:   {Path(recipe.config.output_dir) / 'model'}")


TRAIN = Verb(
    "train one method as a recipe says",
    run_method,
    "Checkpoints are kept: run the same command with --resume_from_checkpoint true to go on.",
)
