"""Rows: loading, splits, the audit of what was trained on, and what feeds the trainer.

The public names are imported on first use, so that a module that needs one room does not pay for the whole house.
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
}  # the function `audit` stays in its module, whose name it shares

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hfssl.data' has no attribute '{name}'")
    return getattr(import_module(f"hfssl.data.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
