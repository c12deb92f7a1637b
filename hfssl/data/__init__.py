"""Loads and splits rows, audits training rows, and feeds the trainer.

Public names are imported on first use, so that a module that uses one name does not import all of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "AuditReport": "audit",
    "SemiSupervisedSplits": "splits",
    "few_label_splits": "splits",
    "fingerprint": "audit",
    "inspect_texts": "audit",
    "load_table": "loading",
    "near_duplicate_components": "duplicates",
    "read_rows": "tables",
    "training_manifest": "audit",
}  # the function `audit` stays in its module, which has the same name

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hfssl.data' has no attribute '{name}'")
    return getattr(import_module(f"hfssl.data.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
