"""The folder of one run of `fit`: its settings, its finished stages and their records."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfssl.errors import ConfigurationError, ModelError
from hfssl.pipeline.stage_record import StageRecord
from hfssl.reporting.results import RESULTS, SCHEMA_VERSION, older_version, read_results
from hfssl.runtime.files import make_folder, write_json

__all__ = ["RunFolder", "model_and_splits"]

SETTINGS = "settings.json"
DONE = "done.json"
# Flags that do not change the result: a resumed run may have other values.
HOW = ("resume", "overwrite_output_dir", "quiet", "output_dir", "report_to")


class RunFolder:
    """Opens the output folder of a run, new or resumed.

    Args:
        path (`str` or `Path`): The folder.
        settings (`dict[str, Any]`): All settings that determine the result; a resumed run must have the same ones.
        resume (`bool`): Whether to resume the run in the folder.
        overwrite (`bool`): Whether to delete the run in the folder. Only folders that `fit` made are ever deleted.

    Nothing is written or deleted before `open` is called, so that bad input destroys no earlier run, and leaves no
    files that would stop the corrected command.

    Attributes:
        resumed (`bool`): Whether the folder already holds the splits of this run.

    Raises:
        ConfigurationError: The folder holds another run, or files that are not a run.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], *, resume: bool, overwrite: bool):
        self.path = Path(path)
        self.resumed = self._replace = False
        self._settings = {name: value for name, value in settings.items() if name not in HOW}
        if self.path.exists() and not self.path.is_dir():
            raise ConfigurationError(f"output_dir must be a folder, but '{path}' is a file; choose another name.")
        if self.path.exists() and any(self.path.iterdir()):
            self._take_over(resume=resume, overwrite=overwrite)

    def _take_over(self, *, resume: bool, overwrite: bool) -> None:
        if not (self.path / SETTINGS).exists():
            raise ConfigurationError(
                f"output_dir '{self.path}' is not empty and holds no hfssl run; choose an empty or a new folder."
            )
        if not self.splits.exists():
            return  # a run that ended before its data was saved: nothing can be resumed, and nothing can be lost
        before = json.loads((self.path / SETTINGS).read_text(encoding="utf-8"))
        if overwrite:
            self._replace = True
        elif before.get("schema_version", 1) != SCHEMA_VERSION:
            raise ConfigurationError(
                f"{older_version(self.path, before)} Add --overwrite-output-dir to replace it, or choose another "
                "folder."
            )
        elif not resume:
            raise ConfigurationError(
                f"output_dir '{self.path}' already holds a run; add --resume to go on with it, "
                "--overwrite-output-dir to delete it, or choose another folder."
            )
        else:
            settings = {"schema_version": SCHEMA_VERSION, **self._settings}
            differing = sorted(name for name in settings.keys() | before if settings.get(name) != before.get(name))
            if differing:
                raise ConfigurationError(
                    [
                        f"--resume goes on with the run in '{self.path}', which had {name}={before.get(name)!r}; "
                        f"got {settings.get(name)!r}. Give the same value, or start again with --overwrite-output-dir."
                        for name in differing
                    ]
                )
            self.resumed = True

    def open(self) -> None:
        """Prepares the folder for writing; deletes the run that is to be replaced."""
        if self._replace:
            shutil.rmtree(self.path)
        make_folder(self.path)
        if not self.resumed:
            for leftover in self.path.glob(".*.tmp"):  # of a run that was killed while it saved its splits
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            write_json(self.path / SETTINGS, {"schema_version": SCHEMA_VERSION, **self._settings})

    @property
    def splits(self) -> Path:
        """Returns the folder of the splits, which a run saves first."""
        return self.path / "splits"

    def stage(self, name: str) -> Path:
        """Returns the folder of a stage."""
        return self.path / "stages" / name

    def done(self, name: str) -> StageRecord | None:
        """Returns the record of a finished stage, or `None`."""
        marker = self.stage(name) / DONE
        if not marker.exists():
            return None
        try:
            return StageRecord.from_dict(json.loads(marker.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"Expected the record of the stage '{name}' in '{marker}', found a file that cannot be read as one: "
                f"delete '{marker.parent}' and give --resume to run the stage again, or start anew with "
                "--overwrite-output-dir."
            ) from error

    def run_once(self, name: str, work: Callable[[Path], StageRecord]) -> StageRecord:
        """Runs `work(folder)` unless the stage is done, and records its result with its duration in seconds.

        The marker is written last: after a kill the stage is run again, and its trainers resume from their newest
        complete checkpoint. `seconds` is then the duration of the last attempt only, and `attempts` is the number of
        attempts.

        Args:
            name (`str`): Name of the stage, in `STAGES`.
            work (`Callable[[Path], StageRecord]`): Function that runs the stage in its folder.
        """
        recorded = self.done(name)
        if recorded is not None:
            return recorded
        folder = self.stage(name)
        folder.mkdir(parents=True, exist_ok=True)
        attempts = folder / "attempts"
        count = int(attempts.read_text()) + 1 if attempts.exists() else 1
        attempts.write_text(str(count))
        started = time.perf_counter()
        record = work(folder)
        record = replace(record, seconds=time.perf_counter() - started, attempts=count)
        write_json(folder / DONE, record.as_dict())
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # the stage's model is saved; these are 3x its size
        return record


def model_and_splits(folder: Path) -> tuple[Path, Path | None]:
    """Returns the folder of the model or adapter, and, if `folder` is a run, that of its splits.

    Args:
        folder (`Path`): Folder of a run, a model or an adapter.

    Raises:
        ModelError: There is no such folder, it holds neither, or its run is not finished or of an older hfssl.
    """
    if not folder.is_dir():
        raise ModelError(
            f"Expected a finished run of hfssl fit, a model or an adapter in '{folder}', but there is no such folder: "
            "give the --output-dir of the run."
        )
    if (folder / RESULTS).is_file():
        read_results(folder)  # raises where an older hfssl has written it
        return folder / "model", folder / "splits"
    if (folder / SETTINGS).is_file() and (folder / "splits").is_dir():
        raise ModelError(
            f"Expected a finished run in '{folder}', but it has no results.json: finish it with hfssl fit --resume."
        )
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ModelError(
            f"Expected a finished run of hfssl fit, a model or an adapter in '{folder}', but it has no results.json, "
            "config.json or adapter_config.json: give the --output-dir of the run."
        )
    return folder, None
