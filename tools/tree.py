"""Keeps the annotated tree in CONTRIBUTING.md equal to the tree.

    python tools/tree.py            # exit status 1 and the difference, if they differ (a test does the same)
    python tools/tree.py --write    # adds new modules with the first sentence of their docstring, drops those gone

What stands beside a name is kept; write a better note by hand.
"""

from __future__ import annotations

import ast
import difflib
import re
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from textwrap import shorten

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
START, END = "<!-- tree -->\n```\n", "```\n<!-- end of tree -->\n"
COLUMN, WIDTH = 36, 119
NOTHING = "..."  # what a file without a docstring has until somebody writes a note
SUFFIXES = (".py", ".typed", ".md", ".html", ".css", ".json")


def listed(root: Path) -> list[str]:
    """Paths of the tree, folders with a slash at the end: everything in hfssl/, then the other folders of the root."""
    ignored = (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    outside = [
        f"{name}/" for name in folders if not any(fnmatch(f"{name}/", pattern) for pattern in ("hfssl/", *ignored))
    ]
    return ["hfssl/", *_inside(root, "hfssl/"), *outside]


def _inside(root: Path, folder: str) -> list[str]:
    """What lies in `folder` and below: its files first, then its folders."""
    paths = sorted((root / folder).iterdir())
    files = [path.name for path in paths if path.suffix in SUFFIXES]
    found = [folder + name for name in files if name != "__init__.py" or folder == "hfssl/"]
    for path in paths:
        if path.is_dir() and path.name != "__pycache__":
            found += [f"{folder}{path.name}/", *_inside(root, f"{folder}{path.name}/")]
    return found


def docstring_note(path: Path) -> str:
    """The first sentence of a module's docstring, without its full stop; empty for what has none."""
    source = path / "__init__.py" if path.is_dir() else path
    if source.suffix != ".py" or not source.is_file():
        return ""
    words = (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    sentence = re.split(r"(?<=[.:;])\s", " ".join(words.split()))[0].rstrip(".:;")
    return shorten(sentence, WIDTH - COLUMN, placeholder=" ...")


def read_notes(block: str) -> dict[str, str]:
    """Path and note of each line of the tree in CONTRIBUTING.md."""
    notes: dict[str, str] = {}
    parents: list[str] = []
    for line in block.splitlines():
        name, _, note = line.strip().partition("  ")
        depth = (len(line) - len(line.lstrip())) // 2
        path = "".join([*parents[:depth], name])
        parents[depth:] = [name]
        notes[path] = note.strip()
    return notes


def render(root: Path, notes: dict[str, str]) -> str:
    """The tree, a line a path, with the notes that are known and docstrings for the rest."""
    lines = []
    for path in listed(root):
        parts = path.rstrip("/").split("/")
        name = "  " * (len(parts) - 1) + parts[-1] + ("/" if path.endswith("/") else "")
        note = notes.get(path) or docstring_note(root / path) or NOTHING
        lines.append(f"{name:<{COLUMN - 2}}  {note}".rstrip())
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> int:
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    block, _, after = rest.partition(END)
    wanted = render(ROOT, read_notes(block))
    if "--write" in argv:
        PAGE.write_text(before + START + wanted + END + after, encoding="utf-8")
        return 0
    difference = difflib.unified_diff(
        block.splitlines(), wanted.splitlines(), "CONTRIBUTING.md", "the tree", lineterm=""
    )
    lines = list(difference)
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
