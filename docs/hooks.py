"""Hooks of MkDocs: files of the repository that pages show, the table of methods, and tables of options.

A page links to a file outside `docs/` as GitHub needs it (`../benchmarks/results/compare.png`); on the site these
files lie at the root. The table of methods is made from the registry, and a table of options from the help texts of a
class (`<!-- options: FitArguments -->`), and that of the fields of `results.json` from its schema (`<!-- schema -->`),
so that they cannot differ from the code.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
SCHEMA = "hfssl/reporting/results.schema.json"
SHOWN = ("benchmarks/results/compare.png", SCHEMA)
TABLE = re.compile(r"(?<=<!-- methods:begin -->\n).*?(?=<!-- methods:end -->)", re.DOTALL)
OPTIONS = re.compile(r"<!-- options: (\w+) -->")


def options_table(name: str) -> str:
    """A row for each field with a help text that a class of hfssl adds to those of its bases; reads source only.

    Raises:
        LookupError: no module of hfssl defines such a class, or it adds no option.
    """
    for path in sorted((ROOT / "hfssl").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if not re.search(rf"^class {name}\b", source, re.MULTILINE):
            continue
        body = next(node.body for node in ast.parse(source).body if getattr(node, "name", "") == name)
        rows = [_option(node) for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call)]
        if rows:
            return "\n".join(["| option | type | default | effect |", "|---|---|---|---|", *rows])
    raise LookupError(f"Expected a class {name} with options below hfssl/, found none: correct the marker.")


def _option(node: ast.AnnAssign) -> str:
    given = {keyword.arg: keyword.value for keyword in node.value.keywords}
    metadata = given["metadata"]
    texts = {key.value: value for key, value in zip(metadata.keys, metadata.values, strict=True)}
    default = f"`{ast.unparse(given['default'])}`" if "default" in given else "required"
    kind = ast.unparse(node.annotation)
    effect = ast.literal_eval(texts["help"]).replace("|", "&#124;")  # in code, a bar does not end a cell
    return f"| `{node.target.id}` | `{kind}` | {default} | {effect} |"


def schema_table(schema: Mapping[str, Any]) -> str:
    """A row for each field of a JSON Schema; `.*` is any key, `[]` any entry of a list."""
    rows = (f"| `{name}` | {kind} | {text} |" for name, kind, text in _fields("", schema, schema))
    return "\n".join(["| field | type | content |", "|---|---|---|", *rows])


def _fields(name: str, node: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    if "$ref" in node:
        node = {**schema["$defs"][node["$ref"].rpartition("/")[2]], **node}
    options = node.get("anyOf", [node])
    defined = [schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part for part in options]
    if name:
        kinds = [part.get("type") or f"always {part['const']}" for part in defined]
        texts = [node.get("description"), *(part.get("description") for part in defined)]
        yield name, " or ".join(kinds), next(filter(None, texts), "")
    for part in defined:
        for key, inner in part.get("properties", {}).items():
            yield from _fields(f"{name}.{key}".removeprefix("."), inner, schema)
        for key, suffix in (("items", "[]"), ("additionalProperties", ".*")):
            inner = part.get(key) or {}
            if {"properties", "$ref", "anyOf", "additionalProperties"} & set(inner):
                yield from _fields(f"{name}{suffix}", inner, schema)


def on_files(files: Any, config: Any) -> Any:
    """Adds the files that exist; a link to one that does not exist then fails the strict build."""
    for name in SHOWN:
        if (ROOT / name).is_file():
            files.append(File.generated(config, Path(name).name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Points the links to these files at their place on the site, and makes the tables."""
    for name in SHOWN:
        markdown = markdown.replace(f"](../{name})", f"]({Path(name).name})")
    if TABLE.search(markdown):
        from hfssl.config.methods import METHODS

        markdown = with_table(markdown, METHODS)
    if (ROOT / SCHEMA).is_file():
        table = schema_table(json.loads((ROOT / SCHEMA).read_text(encoding="utf-8")))
        markdown = markdown.replace("<!-- schema -->", table)
    return OPTIONS.sub(lambda found: options_table(found[1]), markdown)


def with_table(markdown: str, methods: Mapping[str, Any]) -> str:
    """The page with a row for each method between the markers; a method with a page in `docs/methods/` links to it."""
    from hfssl.config.methods import methods_table

    pages = {name: f"{name}.md" for name in methods if (ROOT / "docs" / "methods" / f"{name}.md").is_file()}
    return TABLE.sub(lambda _: methods_table(methods, pages), markdown)
