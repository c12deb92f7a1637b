"""Writes files atomically: each is written under a temporary name and then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "append_json_line",
    "atomic_directory",
    "atomic_file",
    "make_folder",
    "read_arrays",
    "read_json_lines",
    "sha256_of",
    "write_arrays",
    "write_json",
    "write_json_lines",
]


def make_folder(path: str | os.PathLike) -> None:
    """Creates a folder and its parents, unless they exist.

    Raises:
        PermissionError: if the folder cannot be created; the message names `path`. Some file systems (`/proc`) report
            "no such file" in this case.
    """
    with _refusal_named(path):
        Path(path).mkdir(parents=True, exist_ok=True)


@contextmanager
def _refusal_named(folder: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        raise PermissionError(errno.EACCES, "not writable", os.fspath(folder)) from error


@contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path next to `path`; on success it is synced and renamed to `path`, else removed."""
    path = Path(path)
    make_folder(path.parent)
    with _refusal_named(path.parent):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp creates files that only their owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | os.PathLike) -> Iterator[Path]:
    """Yields an empty temporary folder next to `path`; on success it replaces `path` as a whole."""
    path = Path(path)
    make_folder(path.parent)
    with _refusal_named(path.parent):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    temporary.chmod(0o755)
    try:
        yield temporary
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old.tmp"))
            os.replace(path, old / path.name)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray | float | None]) -> None:
    """Writes an `.npz` file atomically; values that are `None` are left out."""
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{name: array for name, array in arrays.items() if array is not None})


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a file that `write_arrays` wrote; pickled data is refused."""
    with np.load(path, allow_pickle=False) as saved:
        return dict(saved)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, atomically. NaN is refused, since it is not valid JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def append_json_line(path: str | os.PathLike, value: Any) -> None:
    """Adds one JSON line. The whole file is rewritten and renamed, so that a killed process leaves no partial line."""
    write_json_lines(path, [*read_json_lines(path), value])


def write_json_lines(path: str | os.PathLike, values: Iterable[Any]) -> None:
    """Writes one JSON line per value, atomically."""
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values)


def read_json_lines(path: str | os.PathLike) -> list[Any]:
    """Reads a JSON-lines file; returns an empty list for a missing file."""
    path = Path(path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line] if path.exists() else []


def sha256_of(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file's bytes as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
