"""Hooks of MkDocs: files of the repository that pages show, and the table of methods.

A page links to a file outside `docs/` as GitHub needs it (`../benchmarks/results/compare.png`); on the site these
files lie at the root. The table of methods is made from the registry, so that it cannot differ from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
SHOWN = ("benchmarks/results/compare.png", "hfssl/reporting/results.schema.json")
TABLE = re.compile(r"(?<=<!-- methods:begin -->\n).*?(?=<!-- methods:end -->)", re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """Adds the files that exist; a link to one that does not exist then fails the strict build."""
    for name in SHOWN:
        if (ROOT / name).is_file():
            files.append(File.generated(config, Path(name).name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Points the links to these files at their place on the site, and renews the table of methods."""
    for name in SHOWN:
        markdown = markdown.replace(f"](../{name})", f"]({Path(name).name})")
    if TABLE.search(markdown):
        from hfssl.config.methods import METHODS

        markdown = with_table(markdown, METHODS)
    return markdown


def with_table(markdown: str, methods: Mapping[str, Any]) -> str:
    """The page with a row for each method between the markers."""
    return TABLE.sub(lambda _: methods_table(methods), markdown)


def methods_table(methods: Mapping[str, Any]) -> str:
    """A row for each method; a method with a page in `docs/methods/` links to it."""
    lines = ["| method | trainer | product | reads | what it does | source |", "|---|---|---|---|---|---|"]
    for name, method in methods.items():
        has_page = (ROOT / "docs" / "methods" / f"{name}.md").is_file()
        title = f"[`{name}`]({name}.md)" if has_page else f"`{name}`"
        trainer = method.trainer.partition(":")[2]
        cells = (title, f"`{trainer}`", method.product, ", ".join(method.streams), method.summary, method.paper)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
