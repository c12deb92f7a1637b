"""The output folder of a recipe: its marker, and what its run has read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hfssl.data.splits import SemiSupervisedSplits
from hfssl.errors import ConfigurationError, DamagedFile
from hfssl.pipeline.inputs import check_inputs, input_fingerprints
from hfssl.runtime.files import is_leftover, read_checked_json, write_checked_json

__all__ = ["RECIPE_MARKER", "begin_recipe_folder", "check_recipe_folder"]

RECIPE_MARKER = "hfssl_recipe.json"
"""The first file of a recipe's run: a folder without it is none of ours."""


def check_recipe_folder(recipe: Any, folder: Path, *, resume: bool) -> None:
    """Refuses a folder that holds something else, and a run whose input has changed.

    Args:
        recipe (`Recipe`): Method and settings.
        folder (`Path`): The `output_dir`.
        resume (`bool`): Whether to go on with the run in it.

    Raises:
        ConfigurationError: The folder holds a run that is not to be resumed, one whose input has changed, or files
            that are no run.
    """
    marker = folder / RECIPE_MARKER
    if marker.is_file():
        if not resume:
            raise ConfigurationError(
                f"output_dir '{folder}' already holds a run; add --resume_from_checkpoint true to go on with it, "
                "delete it, or choose another folder."
            )
        try:
            found = read_checked_json(marker)
        except DamagedFile as error:
            remedy = "choose another folder, or delete this one and start again"
            raise DamagedFile(error.path, error.found, remedy) from None
        check_inputs(_arguments(recipe), found["inputs"], folder, again="in another folder")
        return
    if folder.is_dir() and any(not is_leftover(entry, [RECIPE_MARKER]) for entry in folder.iterdir()):
        raise ConfigurationError(
            f"output_dir '{folder}' is not empty and holds no run of a recipe (no {RECIPE_MARKER}); choose an empty "
            "or a new folder."
        )


def begin_recipe_folder(recipe: Any, folder: Path, splits: SemiSupervisedSplits) -> None:
    """Writes the marker with the fingerprints of the input, and saves the splits.

    Args:
        recipe (`Recipe`): Method and settings.
        folder (`Path`): The `output_dir`.
        splits (`SemiSupervisedSplits`): Parts of the data.
    """
    if not (folder / RECIPE_MARKER).exists():
        inputs = input_fingerprints(_arguments(recipe))
        write_checked_json(folder / RECIPE_MARKER, {"made_by": "recipe", "method": recipe.method, "inputs": inputs})
    splits.save(folder / "splits")


def _arguments(recipe: Any) -> SimpleNamespace:
    return SimpleNamespace(**vars(recipe.data), backbone=recipe.model.backbone)
