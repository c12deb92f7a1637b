"""What a finished run needs no more: the models of its stages, their embeddings, and what kills have left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hfssl.errors import ConfigurationError
from hfssl.pipeline.run_folder import LOCK, MARKER, check_finished, remove_leftovers
from hfssl.reporting.results import RESULTS
from hfssl.runtime.locks import locked

__all__ = ["Cleaned", "clean", "tidy"]

# What stays of a stage, for readers: its record, its predictions on held-out rows, its pseudo-labels and logs.
# `model/` is the final stage's model with its temperature; resuming, predicting, pushing, exporting, the demo and the
# report read none of the stages' own.
KEPT = frozenset(
    ("done.json", "attempts.json", "logits.npz", "cross_fit.npz", "pseudo_labels.npz", "rounds.jsonl", "curve.jsonl")
)


@dataclass(frozen=True)
class Cleaned:
    """Describes what `clean` has deleted, or would delete.

    Args:
        files (`dict[str, int]`): Path below the run's folder -> size in bytes.
    """

    files: dict[str, int]

    @property
    def bytes(self) -> int:
        """Returns the sum of the sizes."""
        return sum(self.files.values())


def tidy(folder: Path, *, dry_run: bool = False) -> Cleaned:
    """Deletes the files below `stages/` that nothing needs once `results.json` is written.

    Args:
        folder (`Path`): Folder of a finished run.
        dry_run (`bool`, defaults to `False`): Whether to delete nothing.
    """
    stages, found = folder / "stages", {}
    paths = sorted(stages.rglob("*")) if stages.is_dir() else []
    for path in paths:
        if path.is_symlink() or (path.is_file() and path.name not in KEPT):
            found[path.relative_to(folder).as_posix()] = path.lstat().st_size
            if not dry_run:
                path.unlink()
    if not dry_run:
        for path in reversed(paths):  # what is in a folder comes before it
            if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
                path.rmdir()
        remove_leftovers(folder)
    return Cleaned(found)


def clean(folder: str | Path, *, dry_run: bool = False) -> Cleaned:
    """Deletes what a finished run needs no more: the models of its stages, which `--keep-stages` has kept.

    Args:
        folder (`str` or `Path`): Folder of a finished run of `fit`.
        dry_run (`bool`, defaults to `False`): Whether to delete nothing.

    Raises:
        ConfigurationError: The folder holds no run, its run is not finished, or another process works in it.
        DamagedFile: A file of the run is not as it was written: the stages may be what is left of it.
    """
    folder = Path(folder)
    if not (folder / MARKER).is_file():
        raise ConfigurationError(
            f"Expected a finished run of hfssl fit in '{folder}', found no {MARKER} there: give the --output-dir of "
            "the run."
        )
    if not (folder / RESULTS).is_file():
        raise ConfigurationError(
            f"Expected a finished run in '{folder}', found one without {RESULTS}, which needs its stages: finish it "
            "with hfssl fit --resume."
        )
    with locked(folder / LOCK):
        check_finished(folder)
        return tidy(folder, dry_run=dry_run)
