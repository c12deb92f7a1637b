"""Fingerprints of what a run reads, by which `--resume` notices that it has changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers.utils import logging

from hfssl.errors import ConfigurationError
from hfssl.runtime.files import sha256_of
from hfssl.runtime.ledger import files_of

__all__ = ["INPUTS", "changed_inputs", "check_inputs", "input_fingerprints", "local_inputs"]

logger = logging.get_logger(__name__)

INPUTS = ("train", "unlabeled", "validation", "test", "class_names", "class_prior", "backbone")
"""Names of the arguments of `fit` that may name files or folders."""


def local_inputs(arguments: Any) -> dict[str, Path]:
    """Returns argument -> file or folder, of those that exist on this machine.

    Args:
        arguments (`FitArguments`): The run's arguments.
    """
    found = {}
    for name in INPUTS:
        value = getattr(arguments, name, None)
        if isinstance(value, str | os.PathLike) and value and len(os.fspath(value)) < 4096:
            if (path := Path(value)).exists():
                found[name] = path
    return found


def input_fingerprints(arguments: Any) -> dict[str, dict[str, Any]]:
    """Returns argument -> size in bytes and SHA-256 of its file or folder, or the commit of its Hub repository.

    Args:
        arguments (`FitArguments`): The run's arguments.
    """
    found: dict[str, dict[str, Any]] = {name: _fingerprint(path) for name, path in local_inputs(arguments).items()}
    backbone = getattr(arguments, "backbone", None)
    if "backbone" not in found and isinstance(backbone, str) and (revision := _cached_revision(arguments, backbone)):
        found["backbone"] = {"revision": revision}
    return found


def changed_inputs(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the names of the inputs that exist in both and differ.

    Args:
        before (`Mapping`): Result of `input_fingerprints` when the run began.
        now (`Mapping`): The same of today.
    """
    return [name for name in before if name in now and dict(before[name]) != dict(now[name])]


def check_inputs(
    arguments: Any,
    before: Mapping[str, Mapping[str, Any]],
    folder: Path,
    *,
    again: str = "with --overwrite-output-dir or in another folder",
) -> None:
    """Compares the inputs with those that the run in `folder` has read.

    A table that is gone is told: the run has kept its rows. A changed one is refused, because the run would go on
    without the changes.

    Args:
        arguments (`FitArguments`): The run's arguments.
        before (`Mapping`): Result of `input_fingerprints` when the run began.
        folder (`Path`): Folder of the run.
        again (`str`, *optional*): How to start again with the input as it is now.

    Raises:
        ConfigurationError: an input has changed; the error lists all of them.
    """
    now = input_fingerprints(arguments)
    problems = []
    for name in changed_inputs(before, now):
        what = f"{name} '{getattr(arguments, name)}'"
        problems.append(
            f"Resuming goes on with the input that the run in '{folder}' has read, but {what} has changed since "
            f"({_change(before[name], now[name])}): put it back as it was, or, to use it as it is now, start again "
            f"{again}."
        )
    if problems:
        raise ConfigurationError(problems)
    for name in before:
        if name not in now and name != "backbone":
            logger.warning(
                "%s '%s' is gone; the run goes on with the rows that it kept.", name, getattr(arguments, name)
            )


def _change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if "revision" in before or "revision" in now:
        return f"from {_shown(before)} to {_shown(now)}"
    if before["bytes"] == now["bytes"]:
        return f"the same {now['bytes']:,} bytes, another content"
    return f"from {before['bytes']:,} to {now['bytes']:,} bytes"


def _shown(found: Mapping[str, Any]) -> str:
    return f"commit {found['revision'][:12]}" if "revision" in found else "a local folder"


def _fingerprint(path: Path) -> dict[str, Any]:
    if path.is_file():
        return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    files = files_of(path)
    lines = "".join(f"{name}\0{entry['sha256']}\n" for name, entry in files.items())
    digest = hashlib.sha256(lines.encode()).hexdigest()
    return {"bytes": sum(entry["size"] for entry in files.values()), "sha256": digest}


def _cached_revision(arguments: Any, repo_id: str) -> str | None:
    """Returns the commit of a Hub model in the local cache."""
    try:
        path = try_to_load_from_cache(repo_id, "config.json", revision=getattr(arguments, "revision", None))
    except ValueError:  # not a valid name of a repository
        return None
    return Path(path).parent.name if isinstance(path, str) else None
