"""Which code has made a cell: digests of the modules that its process used, to compare with those of today."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from grid import ROOT

__all__ = ["changed_code", "code_digest", "used_code"]

# Modules that cannot change a prediction, and those whose values are compared instead.
NOT_LEARNING = (
    *("hfssl.reporting", "hfssl.cli", "hfssl.deploy", "hfssl.hub", "hfssl.errors", "hfssl.citations"),
    *("hfssl.pipeline.presets", "hfssl.config.arguments"),
)
PEERS = "benchmarks/peers.py"


def used_code(method: str) -> dict[str, str]:
    """Path -> digest of each module of this repository by which the method has learned in this process."""
    if not method.startswith("hfssl"):
        return {PEERS: code_digest(ROOT / PEERS)}
    names = [name for name in sys.modules if name.split(".")[0] == "hfssl" and not name.startswith(NOT_LEARNING)]
    paths = sorted({Path(file).resolve() for name in names if (file := sys.modules[name].__file__) is not None})
    return {path.relative_to(ROOT).as_posix(): code_digest(path) for path in paths if path.is_relative_to(ROOT)}


def changed_code(code: Mapping[str, str]) -> list[str]:
    """The modules of a kept cell that are other ones today, or gone; comments and docstrings do not count."""
    return [name for name, digest in code.items() if not (ROOT / name).exists() or code_digest(ROOT / name) != digest]


@cache
def code_digest(path: Path) -> str:
    """Eight hexadecimal digits of a module's syntax tree without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:8]
