"""Renders Markdown for cards: escaped text, code fences, names for metadata."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = [
    "environment",
    "escape_markdown",
    "fenced",
    "hub_id",
    "private",
    "private_command",
    "shown_base_model",
    "slug",
]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def environment(**filters: Any) -> Environment:
    """Returns the Jinja environment of `hfssl/reporting/templates`, with `md`, `fence`, `literal` and more `filters`.

    There is no autoescape, since the output is Markdown. All values from the user pass through `md` or a code fence.
    """
    found = Environment(
        loader=PackageLoader("hfssl.reporting", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"md": escape_markdown, "fence": fenced, "literal": json.dumps, **filters}
    return found


def escape_markdown(text: object) -> str:
    """Escapes text as one line of Markdown: no emphasis, link, list, table cell, HTML or formula.

    Characters get a backslash only where Markdown would interpret them, so that the source stays readable. `&`, `<`
    and `>` become entities, so that no renderer reads them as HTML.
    """
    line = "".join(character for character in " ".join(str(text).split()) if character.isprintable())
    line = re.sub(r"([\\`*_\[\]|~$@])", r"\\\1", line)
    line = re.sub(r":(?=\S)", r"\:", line)  # addresses and emoji names
    line = re.sub(r"(?i)\b(www)\.", r"\1\.", line)
    line = re.sub(r"^([#+\-=]|\d+(?=[.)]))", _at_line_start, line)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _at_line_start(match: re.Match[str]) -> str:
    """Escapes the start of headings, lists and underlines; for a numbered list, its period or parenthesis."""
    return match[0] + "\\" if match[0].isdigit() else "\\" + match[0]


def fenced(text: str, language: str = "") -> str:
    """Returns a code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.strip()}\n{fence}"


def private(value: Any) -> Any:
    """Cuts absolute paths in a value to their last part, since a published card must not show home folders."""
    if isinstance(value, Mapping):
        return {name: private(item) for name, item in value.items()}
    if isinstance(value, str) and value.startswith(("/", "~")):
        return Path(value).name
    return value


def private_command(command: str | Sequence[str]) -> str:
    """Returns a command line without the folders of this machine."""
    words = shlex.split(command) if isinstance(command, str) else command
    return shlex.join(private(word) for word in words)


def hub_id(name: str) -> str | None:
    """Returns `name` if it is a valid Hub id and not a local path, else `None`."""
    if Path(name).exists() or Path(name).suffix in TABLE_SUFFIXES:
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def shown_base_model(base_model: str) -> str:
    """Returns a Hub id unchanged, or the last part of a folder."""
    return hub_id(base_model) or Path(base_model).resolve().name


def slug(name: str) -> str:
    """Returns a name for metadata and folders: letters, digits, dots, underscores, dashes."""
    stem = Path(name).stem if Path(name).suffix in TABLE_SUFFIXES else name
    return re.sub(r"[^A-Za-z0-9._]+", "-", stem).strip("-.") or "data"
