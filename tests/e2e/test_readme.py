"""The front door is true: the annotated tree is the tree, and the two commands exist."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.helpers import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
TREE = README.split("## The tree")[1].split("```")[1]


def test_every_module_is_in_the_tree():
    stems = {path.stem for path in (ROOT / "hfssl").rglob("*.py")} - {"__init__"}
    assert len(stems) > 40
    assert stems - set(re.findall(r"\w+", TREE)) == set()


def test_everything_in_the_tree_exists():
    named = re.findall(r"(?<![\w/])(\w+\.(?:py|md|html)|\w+/)", TREE)
    assert len(named) > 40
    homes = [
        ROOT,
        *(ROOT / name for name in ("hfssl", "docs", "recipes", "benchmarks", "hfssl/templates", "hfssl/report")),
    ]
    missing = [name for name in named if not any((home / name).exists() for home in homes)]
    assert not missing


@pytest.mark.parametrize("target", ["quickstart", "test"])
def test_the_two_commands_are_targets(target):
    assert f"make {target} " in README
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_relative_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
