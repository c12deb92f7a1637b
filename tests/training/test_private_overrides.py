"""The private names of `transformers.Trainer` that the engine uses are listed, and no others are used."""

from __future__ import annotations

import ast
import inspect
import re

from transformers import Trainer

import hfssl.training
from tests.helpers import ROOT

SOURCES = [path for folder in ("training", "methods") for path in sorted((ROOT / "hfssl" / folder).rglob("*.py"))]


def private_names_of_the_stock_trainer() -> set[str]:
    """Methods of `Trainer`, and attributes that it sets on itself."""
    source = inspect.getsource(Trainer)
    names = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    return {name for name in names | set(vars(Trainer)) if name.startswith("_") and not name.startswith("__")}


def test_the_list_of_private_names_is_complete_and_no_longer_than_needed():
    listed = set(re.findall(r"`(_\w+)`", hfssl.training.__doc__))
    stock = private_names_of_the_stock_trainer()
    used = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                used.add(node.name)
            elif isinstance(node, ast.Attribute):
                used.add(node.attr)
    assert listed <= stock
    assert used & stock == listed
