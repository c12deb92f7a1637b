"""Lists of files with their sizes and SHA-256, by which a folder is checked before it is used again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hfssl.errors import DamagedFile
from hfssl.runtime.files import read_checked_json, sha256_of, write_checked_json

__all__ = ["SEAL", "check_files", "check_seal", "files_of", "seal", "sealed_files"]

SEAL = "hfssl_files.json"
"""Name of the list that `seal` writes into a folder."""

Ledger = dict[str, dict[str, Any]]


def files_of(folder: str | os.PathLike, wanted: Callable[[str], bool] = lambda name: True) -> Ledger:
    """Returns path below `folder` -> size in bytes and SHA-256, of all files in it, sorted by path.

    Args:
        folder (`str` or `Path`): The folder.
        wanted (`Callable[[str], bool]`, *optional*): Whether to list a path. Default: all.
    """
    folder, found = Path(folder), {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != SEAL and wanted(name):
            found[name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    return found


def check_files(folder: str | os.PathLike, ledger: Mapping[str, Mapping[str, Any]]) -> None:
    """Compares the files of a folder with a list of them; files that are not listed are not looked at.

    Args:
        folder (`str` or `Path`): The folder.
        ledger (`Mapping`): Result of `files_of`.

    Raises:
        DamagedFile: a file is missing or differs; the error names the first.
    """
    for name, expected in ledger.items():
        path = Path(folder) / name
        if not path.is_file():
            raise DamagedFile(path, "no file")
        if (size := path.stat().st_size) != expected["size"]:
            raise DamagedFile(path, f"{size:,} bytes, not {expected['size']:,}")
        if sha256_of(path) != expected["sha256"]:
            raise DamagedFile(path, "another content")


def seal(folder: str | os.PathLike) -> None:
    """Writes the list of all files of `folder` into it; call it before the folder gets its name."""
    write_checked_json(Path(folder) / SEAL, {"files": files_of(folder)})


def sealed_files(folder: str | os.PathLike) -> Ledger | None:
    """Returns the list that `seal` wrote; `None` for a folder without one.

    Raises:
        DamagedFile: the list itself is damaged.
    """
    path = Path(folder) / SEAL
    if not path.is_file():
        return None
    ledger = read_checked_json(path).get("files")
    if not isinstance(ledger, dict):
        raise DamagedFile(path, "no list of files")
    return ledger


def check_seal(folder: str | os.PathLike) -> None:
    """Compares a folder with the list that `seal` wrote into it; does nothing where there is none.

    Raises:
        DamagedFile: a file is missing or differs.

    Example:
        >>> from hfssl.runtime.ledger import check_seal, seal
        >>> folder.mkdir(parents=True, exist_ok=True)
        >>> _ = (folder / "config.json").write_text("{}")
        >>> seal(folder)
        >>> check_seal(folder)
        >>> _ = (folder / "config.json").write_text("[]")
        >>> check_seal(folder)
        Traceback (most recent call last):
        ...
        hfssl.errors.DamagedFile: ...another content...
    """
    ledger = sealed_files(folder)
    if ledger is None:
        return
    try:
        check_files(folder, ledger)
    except DamagedFile as error:
        found = f"{error.found} (if you changed it yourself, delete '{SEAL}' there)"
        raise DamagedFile(error.path, found) from None
