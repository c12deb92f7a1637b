"""Writes files atomically: each is written under a temporary name and then renamed.

What hfssl reads again can be checked: arrays hold their place, JSON values a checksum. See `hfssl.runtime.ledger` for
whole folders.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hfssl.errors import DamagedFile

__all__ = [
    "append_json_line",
    "atomic_directory",
    "atomic_file",
    "is_leftover",
    "json_bytes",
    "make_folder",
    "read_arrays",
    "read_checked_json",
    "read_json",
    "read_json_lines",
    "sha256_of",
    "write_arrays",
    "write_checked_json",
    "write_json",
    "write_json_lines",
]

# How `atomic_file` and `atomic_directory` name what they have not renamed yet; `tempfile` draws the eight characters.
LEFTOVER = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}(\.old)?\.tmp")
PLACE, CHECK = "__place__", "check"


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


def is_leftover(path: Path, names: Iterable[str] | None = None) -> bool:
    """Returns whether a killed process has left `path`: a file or folder that was not renamed yet.

    Args:
        path (`Path`): The file or folder.
        names (`Iterable[str]`, *optional*): Names that it may have been going to get. Default: all names.

    Example:
        >>> from pathlib import Path
        >>> is_leftover(Path("run/.settings.json.k3_x9abc.tmp"), ["settings.json"])
        True
        >>> is_leftover(Path("run/.notes.tmp"))
        False
    """
    found = LEFTOVER.fullmatch(path.name)
    return found is not None and (names is None or found["name"] in names)


def write_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray | float | None]) -> None:
    """Writes an `.npz` file atomically, with its place and the names in it; values that are `None` are left out."""
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        kept = {name: array for name, array in arrays.items() if array is not None}
        np.savez(file, **{PLACE: np.array([_place(path), *kept])}, **kept)


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a file that `write_arrays` wrote; pickled data is refused.

    Raises:
        DamagedFile: it cannot be read, a checksum is wrong, an array is missing, or it is the file of another place.
    """
    try:
        with np.load(path, allow_pickle=False) as saved:
            arrays = dict(saved)  # reads, and so checks, all of them
    except FileNotFoundError:
        raise
    except Exception as error:  # of zipfile, zlib, numpy or struct, by what is wrong with the file
        raise DamagedFile(path, f"a file that cannot be read ({type(error).__name__})") from error
    if PLACE not in arrays:
        raise DamagedFile(path, "arrays without their place")
    place, *names = arrays.pop(PLACE).tolist()
    if names != list(arrays):
        raise DamagedFile(path, "other arrays")
    if place != _place(path):
        raise DamagedFile(path, f"the file of '{place}'")
    return arrays


def _place(path: str | os.PathLike) -> str:
    """Returns folder and name: `fold-1/votes.npz`. The folders above may be moved and renamed."""
    return "/".join(Path(path).absolute().parts[-2:])


def json_bytes(value: Any) -> bytes:
    """Returns the bytes that `write_json` writes."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, atomically. NaN is refused, since it is not valid JSON."""
    content = json_bytes(value)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
        DamagedFile: it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFile(path, "a file that is not JSON") from error


def write_checked_json(path: str | os.PathLike, value: Mapping[str, Any]) -> None:
    """Writes a JSON object with a checksum of its content, atomically; see `read_checked_json`."""
    write_json(path, {**value, CHECK: _checksum(value)})


def read_checked_json(path: str | os.PathLike) -> dict[str, Any]:
    """Reads an object that `write_checked_json` wrote, without its checksum.

    Raises:
        DamagedFile: it is not JSON, has no checksum, or another one than its content.
    """
    return _checked(read_json(path), path)


def _checked(value: Any, path: str | os.PathLike) -> dict[str, Any]:
    """Returns an object without its checksum, which must be that of its content."""
    if not isinstance(value, dict) or CHECK not in value:
        raise DamagedFile(path, "something else than a JSON object with a checksum")
    content = {name: part for name, part in value.items() if name != CHECK}
    if value[CHECK] != _checksum(content):
        raise DamagedFile(path, "a content that its checksum does not fit")
    return content


def _checksum(value: Any) -> str:
    as_read = json.loads(json.dumps(value, allow_nan=False))  # keys are strings there
    text = json.dumps(as_read, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def append_json_line(path: str | os.PathLike, value: Mapping[str, Any]) -> None:
    """Adds one JSON line. The whole file is rewritten and renamed, so that a killed process leaves no partial line."""
    write_json_lines(path, [*read_json_lines(path), value])


def write_json_lines(path: str | os.PathLike, values: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON line with a checksum per value, atomically."""
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for value in values:
            line = {**value, CHECK: _checksum(value)}
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def read_json_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads a file of `write_json_lines`, without the checksums; returns an empty list for a missing file.

    Raises:
        DamagedFile: a line is not JSON, or its checksum is wrong.
    """
    path = Path(path)
    if not path.exists():
        return []
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (ValueError, RecursionError) as error:
        raise DamagedFile(path, "a line that is not JSON") from error
    return [_checked(line, path) for line in lines]


def sha256_of(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file's bytes as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
