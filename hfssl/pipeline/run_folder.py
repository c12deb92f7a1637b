"""The folder of one run of `fit`: its marker, its settings, its finished stages and their records."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from hfssl.errors import ConfigurationError, DamagedFile, ModelError
from hfssl.pipeline.stage_record import StageRecord
from hfssl.reporting.results import RESULTS, SCHEMA_VERSION, older_version, read_results
from hfssl.runtime.files import (
    is_leftover,
    json_bytes,
    make_folder,
    read_checked_json,
    read_json,
    sha256_of,
    write_checked_json,
    write_json,
)
from hfssl.runtime.ledger import check_files, files_of, sealed_files
from hfssl.runtime.locks import release, take_lock

__all__ = [
    "LEDGER",
    "LOCK",
    "MARKER",
    "OWN",
    "RunFolder",
    "check_finished",
    "model_and_splits",
    "remove_leftovers",
]

SETTINGS, INPUTS, DONE, ATTEMPTS = "settings.json", "inputs.json", "done.json", "attempts.json"

MARKER = "hfssl_run.json"
"""The first file of a run: a folder without it is none, whatever else is in it."""

LEDGER = "files.json"
"""Sizes and SHA-256 of a finished run's files."""

LOCK = "hfssl_run.lock"
MADE_BY = {"made_by": "hfssl fit", "format": 1}

OWN = (
    *(MARKER, SETTINGS, INPUTS, LEDGER, RESULTS, "budget.json", "report.html", "README.md", "errors.csv"),
    *("splits", "stages", "model", "adapter", "onnx", "tensorboard"),
)
"""Names of all that hfssl writes into the folder of a run; nothing else in it is ever removed."""

SEALED = ("splits", "model", "adapter")  # folders whose files are listed in them
NOBODYS = ("lost+found",)  # in the root of a volume
# Flags that do not change the result: a resumed run may have other values.
HOW = ("resume", "overwrite_output_dir", "quiet", "output_dir", "report_to", "keep_stages", "fail_below_baseline")


class RunFolder:
    """Opens the output folder of a run, new or resumed.

    Args:
        path (`str` or `Path`): The folder; it may be a link or the root of a volume.
        settings (`dict[str, Any]`): All settings that determine the result; a resumed run must have the same ones.
        resume (`bool`): Whether to resume the run in the folder.
        overwrite (`bool`): Whether to delete the run in the folder. Only what `fit` wrote is ever deleted.
        inputs (`Iterable[Path]`, defaults to `()`): Files and folders that the run reads, which it must not delete.

    Nothing is written or deleted before `open` is called, so that bad input destroys no earlier run, and leaves no
    files that would stop the corrected command.

    Attributes:
        resumed (`bool`): Whether the folder already holds the splits of this run.

    Raises:
        ConfigurationError: The folder holds another run, or files that are not a run.
        DamagedFile: The marker or the settings of the run in it cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        settings: dict[str, Any],
        *,
        resume: bool,
        overwrite: bool,
        inputs: Iterable[Path] = (),
    ):
        self.path = Path(path)
        self.resumed = self._replace = False
        self._settings = {name: value for name, value in settings.items() if name not in HOW}
        self._checked: set[str] = set()
        self._lock: FileLock | None = None
        if (self.path.exists() and not self.path.is_dir()) or (self.path.is_symlink() and not self.path.exists()):
            raise ConfigurationError(
                f"output_dir must be a folder, but '{path}' is a file or a link to nothing; choose another name."
            )
        if self._holds_something():
            try:
                self._take_over(resume=resume, overwrite=overwrite, inputs=inputs)
            except DamagedFile as error:
                raise self.explained(error) from None

    def _holds_something(self) -> bool:
        """Returns whether there is more than what a run leaves that was killed before its marker was written."""
        return self.path.is_dir() and any(
            entry.name not in (LOCK, *NOBODYS) and not is_leftover(entry, [MARKER]) for entry in self.path.iterdir()
        )

    def _take_over(self, *, resume: bool, overwrite: bool, inputs: Iterable[Path]) -> None:
        if not (self.path / MARKER).is_file():
            raise ConfigurationError(
                f"output_dir '{self.path}' is not empty and holds no hfssl run (no {MARKER}); choose an empty or a "
                "new folder."
            )
        if {name: read_checked_json(self.path / MARKER).get(name) for name in MADE_BY} != MADE_BY:
            raise ConfigurationError(
                f"output_dir '{self.path}' holds a run that another hfssl has begun; choose another folder."
            )
        # Without INPUTS it ended before its data was saved: nothing of it can be resumed, and nothing can be lost.
        if overwrite or not (self.path / INPUTS).exists():
            self._refuse_to_lose(inputs)
            self._replace = True
            return
        before = read_json(self.path / SETTINGS)
        if not isinstance(before, dict):
            raise DamagedFile(self.path / SETTINGS, "no settings")
        if before.get("schema_version", 1) != SCHEMA_VERSION:
            raise ConfigurationError(
                f"{older_version(self.path, before)} Add --overwrite-output-dir to replace it, or choose another "
                "folder."
            )
        if not resume:
            raise ConfigurationError(
                f"output_dir '{self.path}' already holds a run; add --resume to go on with it, "
                "--overwrite-output-dir to delete it, or choose another folder."
            )
        if sha256_of(self.path / SETTINGS) != self.inputs()["settings"]:
            raise DamagedFile(self.path / SETTINGS, "another content")
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

    def _refuse_to_lose(self, inputs: Iterable[Path]) -> None:
        """Refuses to delete the run where something of the user's would be lost with it."""
        own = [(self.path / name).resolve() for name in OWN]
        for given in inputs:
            if any(given.resolve().is_relative_to(place) for place in own):
                raise ConfigurationError(
                    f"A run in '{self.path}' would delete '{given}', which it is to read: copy that to another "
                    "place, or choose another output_dir."
                )
        for name in SEALED:
            folder = self.path / name
            known = (sealed_files(folder) or {}) if folder.is_dir() else {}
            if known and (others := [path for path in files_of(folder) if path not in known]):
                raise ConfigurationError(
                    f"A run in '{self.path}' would delete '{folder / others[0]}', which hfssl did not write: "
                    "move it to another place, or choose another output_dir."
                )

    def open(self) -> None:
        """Prepares the folder for writing, for this process alone; deletes the run that is to be replaced.

        Raises:
            ConfigurationError: Another process works in the folder, or has begun a run there in the meantime.
        """
        if self._lock is not None:
            return
        make_folder(self.path)
        self._lock = take_lock(self.path / LOCK)
        if not self._replace and not self.resumed and self._holds_something():
            self.close()
            raise ConfigurationError(
                f"output_dir '{self.path}' was empty when this run began, but now it is not; choose another folder."
            )
        if self._replace:
            for name in (RESULTS, INPUTS, *OWN):  # from the first on it is neither finished nor resumable
                if name != MARKER:  # with it, what a kill leaves of the rest is still known as hfssl's own
                    _remove(self.path / name)
        remove_leftovers(self.path)
        if not self.resumed:
            write_checked_json(self.path / MARKER, MADE_BY)
            write_json(self.path / SETTINGS, {"schema_version": SCHEMA_VERSION, **self._settings})

    def close(self) -> None:
        """Lets other processes work in the folder again."""
        if self._lock is not None:
            release(self._lock)
            self._lock = None

    def save_inputs(self, fingerprints: Mapping[str, Any]) -> None:
        """Ends the beginning of a run: its settings and splits are there, and can be resumed from now on.

        Args:
            fingerprints (`Mapping[str, Any]`): Result of `hfssl.pipeline.inputs.input_fingerprints`.
        """
        settings = sha256_of(self.path / SETTINGS)
        write_checked_json(self.path / INPUTS, {"settings": settings, "inputs": dict(fingerprints)})

    def inputs(self) -> dict[str, Any]:
        """Returns what `save_inputs` has written: the hash of the settings, and `"inputs"`."""
        return read_checked_json(self.path / INPUTS)

    def finish(self, results: Mapping[str, Any]) -> None:
        """Writes the list of the run's files, and then `results.json`, which ends it.

        Args:
            results (`Mapping[str, Any]`): Content of `results.json`.
        """
        content = json_bytes(results)
        listed = {RESULTS: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
        for name in OWN:
            path = self.path / name
            if name in SEALED and path.is_dir():
                listed |= {f"{name}/{part}": entry for part, entry in files_of(path).items()}
            elif path.is_file() and name not in (RESULTS, LEDGER):
                listed[name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
        write_checked_json(self.path / LEDGER, {"files": listed})
        write_json(self.path / RESULTS, results)

    @property
    def finished(self) -> bool:
        """Returns whether the run has all its results."""
        return (self.path / RESULTS).is_file()

    def explained(self, error: DamagedFile) -> DamagedFile:
        """Returns an error about a damaged file with what to do about it in this run.

        Args:
            error (`DamagedFile`): The error.
        """
        try:
            parts = error.path.resolve().relative_to(self.path.resolve()).parts
        except ValueError:
            return error  # not a file of this run
        if any(part.startswith("checkpoint-") for part in parts):
            return error  # which says what to do
        remedy = "start anew with --overwrite-output-dir, or choose another folder"
        if parts == (MARKER,):
            remedy = "hfssl deletes nothing in a folder that may not be its own, so choose another one"
        elif parts[:1] == ("stages",) and len(parts) > 2 and not self.finished:
            stage = self.path / "stages" / parts[1]
            remedy = f"delete '{stage}' and give --resume to run the stage again, or {remedy}"
        return DamagedFile(error.path, error.found, remedy)

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
        found = read_checked_json(marker)
        files = found.pop("files", {})
        if name not in self._checked:
            check_files(marker.parent, files)
            _remove(marker.parent / "checkpoints")  # a kill after the marker has left them
            self._checked.add(name)
        try:
            return StageRecord.from_dict(found)
        except (TypeError, ValueError) as error:
            raise DamagedFile(marker, "another kind of record") from error

    def run_once(self, name: str, work: Callable[[Path], StageRecord]) -> StageRecord:
        """Runs `work(folder)` unless the stage is done, and records its result with its duration in seconds.

        The marker is written last, with a list of the stage's files: after a kill the stage is run again, and its
        trainers resume from their newest complete checkpoint. `seconds` is then the duration of the last attempt
        only, and `attempts` is the number of attempts.

        Args:
            name (`str`): Name of the stage, in `STAGES`.
            work (`Callable[[Path], StageRecord]`): Function that runs the stage in its folder.
        """
        recorded = self.done(name)
        if recorded is not None:
            return recorded
        folder = self.stage(name)
        folder.mkdir(parents=True, exist_ok=True)
        attempts = folder / ATTEMPTS
        count = int(read_checked_json(attempts)["attempts"]) + 1 if attempts.exists() else 1
        write_checked_json(attempts, {"attempts": count})
        started = time.perf_counter()
        record = work(folder)
        record = replace(record, seconds=time.perf_counter() - started, attempts=count)
        files = files_of(folder, lambda path: path != ATTEMPTS and "checkpoints/" not in path)
        write_checked_json(folder / DONE, {**record.as_dict(), "files": files})
        self._checked.add(name)
        _remove(folder / "checkpoints")  # the stage's model is saved; these are 3x its size
        return record


def _remove(path: Path) -> None:
    """Removes a file, a folder with all that is in it, or a link, not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> list[Path]:
    """Removes what a killed process has not renamed yet; returns what was removed.

    Args:
        folder (`Path`): Folder of a run. In it only names of `OWN` are looked for, below `stages/` all names.
    """
    found = [path for path in folder.iterdir() if is_leftover(path, OWN)]
    if (stages := folder / "stages").is_dir():
        found += [Path(root) / name for root, *names in os.walk(stages) for part in names for name in part]
    found = [path for path in found if is_leftover(path)]
    for path in found:
        if path.exists() or path.is_symlink():
            _remove(path)
    return found


def check_finished(folder: Path, names: Collection[str] | None = None) -> None:
    """Compares the files of a finished run with the list that it wrote before its results; skips runs without one.

    Args:
        folder (`Path`): Folder of the run.
        names (`Collection[str]`, *optional*): Files to look at. Default: all.

    Raises:
        DamagedFile: A file is missing or differs.
    """
    if not (folder / MARKER).is_file():
        return
    if not (folder / LEDGER).is_file():
        raise DamagedFile(folder / LEDGER, "no file")
    files = read_checked_json(folder / LEDGER)["files"]
    check_files(folder, {name: entry for name, entry in files.items() if names is None or name in names})


def model_and_splits(folder: Path) -> tuple[Path, Path | None]:
    """Returns the folder of the model or adapter, and, if `folder` is a run, that of its splits.

    Args:
        folder (`Path`): Folder of a run, a model or an adapter.

    Raises:
        ModelError: There is no such folder, it holds neither, or its run is not finished or of an older hfssl.
        DamagedFile: The results of the run are not as it wrote them.
    """
    if not folder.is_dir():
        raise ModelError(
            f"Expected a finished run of hfssl fit, a model or an adapter in '{folder}', but there is no such folder: "
            "give the --output-dir of the run."
        )
    if (folder / RESULTS).is_file():
        read_results(folder)  # raises where an older hfssl has written it
        check_finished(folder, [RESULTS])
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
