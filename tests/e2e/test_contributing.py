"""CONTRIBUTING.md is true: its tree is the tree, its layers are the contracts, its commands and files exist."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import tree  # noqa: E402

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BLOCK = PAGE.partition(tree.START)[2].partition(tree.END)[0]


def section(title: str) -> str:
    return re.split(r"\n##+ ", PAGE.split(f"# {title}\n")[1])[0]


def test_the_annotated_tree_is_the_tree():
    """`python tools/tree.py --write` mends it."""
    assert BLOCK == tree.render(ROOT, tree.read_notes(BLOCK))


def test_every_line_of_the_tree_has_a_note():
    notes = tree.read_notes(BLOCK)
    assert set(notes) == set(tree.listed(ROOT))
    assert [path for path, note in notes.items() if note in ("", tree.NOTHING)] == []


def test_a_new_module_is_missed_and_then_added(tmp_path):
    (tmp_path / ".gitignore").write_text("build/\n")
    for folder in ("hfssl/data", "hfssl/__pycache__", "build", "docs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "hfssl/__init__.py").write_text('"""The package. And more."""')
    (tmp_path / "hfssl/data/mine.py").write_text('"""Reads a table:\nits rows.\n\nAnd more."""')
    drawn = tree.render(tmp_path, {"hfssl/": "the package"})
    notes = {"hfssl/": "the package", "hfssl/__init__.py": "The package", "hfssl/data/": "...", "docs/": "..."}
    assert tree.read_notes(drawn) == notes | {"hfssl/data/mine.py": "Reads a table"}
    assert tree.render(tmp_path, tree.read_notes(drawn)) == drawn


def test_the_table_of_layers_is_the_contract():
    rows = re.findall(r"^\| (\d) \| (.+?) \|", section("Layers"), re.MULTILINE)
    told = {int(number): set(re.findall(r"`(\w+)(?:/|\.py)`", packages)) for number, packages in rows}
    told[8].discard("recipes")
    contract = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    layers = [{name.strip("() ") for name in layer.split(":")} for layer in contract]
    assert told == dict(enumerate(reversed(layers)))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make ([a-z-]+)", PAGE))))
def test_the_commands_are_targets(target):
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("title", ["Add a method: FixMatch", "Add a stage of `fit`", "Fix the model card"])
def test_a_walk_through_names_at_most_three_files_and_they_exist(title):
    steps = re.findall(r"^\d\. `([^`]+)`( \(new\))?", section(title), re.MULTILINE)
    assert 1 <= len(steps) <= 3
    assert [path for path, new in steps if not new and not (ROOT / path).is_file()] == []


def test_files_that_the_page_names_exist():
    named = set(re.findall(r"`((?:hfssl|tools|tests|docs|recipes|benchmarks)/[\w/.]+)`", PAGE))
    new = set(re.findall(r"`([^`]+)` \(new\)", PAGE))
    assert [name for name in sorted(named - new) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", [".pre-commit-config.yaml", "CITATION.cff", ".github/ISSUE_TEMPLATE/config.yml"])
def test_yaml_files_can_be_read(name):
    assert yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_hooks_are_those_of_make_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    done = subprocess.run(["make", "--dry-run", "lint"], cwd=ROOT, capture_output=True, text=True, check=True)
    for hook in hooks:
        command = hook["entry"].replace(" --force-exclude", "").split()[:4]
        assert " ".join(command) in done.stdout


def test_the_version_stands_in_one_place():
    from hfssl import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert "version" not in citation
    assert "version" not in PYPROJECT["project"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "hfssl.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", __version__)
