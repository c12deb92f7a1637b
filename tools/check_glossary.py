"""Checks names, options, result keys and headings against the "not" column of the glossary in CONTRIBUTING.md.

    python tools/check_glossary.py            # exit status 1, and one line a finding, if a banned word is found
    python tools/check_glossary.py --count    # only how often each banned word is found

Python names are definitions: modules, functions, classes, arguments, attributes, fields, module-level constants. Calls
and local variables follow from them or concern no reader. Prose is for reviewers.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("hfssl", "recipes", "benchmarks", "tests", "tools", "docs", "notebooks")
NAME, OPTION, KEY, HEADING = "name", "option", "key", "heading"
EVERYWHERE = (NAME, OPTION, KEY, HEADING)


@dataclass(frozen=True)
class Rule:
    """A banned word.

    Args:
        pattern (`str`): Regular expression, searched in the name in lower snake case ("Warm start" is `warm_start`).
        use (`str`): The glossary's word.
        kinds (`tuple[str, ...]`): Kinds of names that the rule concerns.
        paths (`str`, defaults to `"*"`): Glob of the files that the rule concerns.
    """

    pattern: str
    use: str
    kinds: tuple[str, ...] = EVERYWHERE
    paths: str = "*"


def word(words: str) -> str:
    """A pattern for whole words of a snake-case name."""
    return rf"(?:^|_)(?:{words})(?:_|$)"


RULES = (
    Rule(word("committees?|opinions?"), "ensemble, prediction, probe"),
    Rule("(?:^|_)say$", "weight, mixture weight", (NAME, OPTION, KEY)),
    Rule(word("neighborhoods?|neighbourhoods?|look_around|looks_around|lookaround"), "embedding signals"),
    Rule("^around$", "embedding signals", (NAME, OPTION, KEY)),
    Rule(word("class_shares|shares"), "class_prior"),
    Rule("^prior$", "class_prior, or the prior of what", (NAME, OPTION, KEY)),
    Rule(word("match_shares|bring_to_shares|to_shares"), "distribution_alignment, align_distribution"),
    Rule("^draws?$", "selection_strategy, selection", (OPTION,)),
    Rule(word("warm_starts?|warmstart"), "contrastive"),
    Rule(word("student_start"), "student_init"),
    Rule(word("head_start"), "head_init"),
    Rule(word("refit_heads?|fitted_anew"), "retrain_head"),
    Rule(word("novel|strange|strangers?|foreign"), "out_of_distribution, ood"),
    Rule("^(chosen|kept)(_stage|_model|_metrics)?$", "selected_stage, final_stage, final_metrics", (KEY, OPTION)),
    Rule(word("otherwise|other_teachers"), "teacher_overrides"),
    Rule("^others$", "teacher_overrides", (OPTION, KEY)),
    Rule(word("from_main"), "broadcast"),
    Rule("^(most|fewest|longest)_(?!probable|similar|frequent|recent)", "max_, min_ with a noun", (NAME, OPTION, KEY)),
    Rule(word("baselines?"), "labels_only", (NAME, OPTION, KEY, HEADING)),
    Rule(word("adapted_backbone"), "pretext, labels_only_after_pretext"),
    Rule("^(supervised|masked_span)$", "labels_only, pretext (stages)", (KEY, NAME), "hfssl/config/stages.py"),
    Rule("^teachers$", "num_teachers", (OPTION,)),
    Rule("^graph$", "label_spreading", (OPTION,)),
    Rule("^filter_novel$", "ood_filter", (OPTION,)),
    Rule("^alignment$", "distribution_alignment", (OPTION,)),
    Rule("^sharpening$", "sharpen_temperature", (OPTION,)),
    Rule("^neighbou?r_smoothing$", "knn_smoothing", (OPTION,)),
    Rule("^frozen_probe$", "backbone_probe", (OPTION,)),
    Rule("^last_selection_fraction$", "final_selection_fraction", (OPTION,)),
    Rule("^what$", "artifact", (OPTION,)),
    Rule("^texts$", "include_report", (OPTION,)),
)


@dataclass(frozen=True)
class Allowed:
    """An exception: names that match `pattern` in files that match `paths`, and why."""

    paths: str
    pattern: str
    reason: str


EXCEPTIONS: tuple[Allowed, ...] = (
    Allowed("hfssl/evaluation/verdict.py", "prior", "what earlier runs gained, not a class prior"),
    Allowed("hfssl/data/audit.py", "script_shares", "shares of writing systems, not of classes"),
    Allowed("*", ".*baselines?.*", "the simplest alternatives, beside which all stages stand; labels only is a stage"),
    Allowed("*", "vote_shares", "shares of the passes that predict a class"),
    Allowed("tests/pipeline/test_costs.py", "test_the_table_gives_shares_of_the_whole", "shares of all tokens"),
    Allowed("benchmarks/peers.py", "most_steps", "the key in results of finished runs"),
    Allowed("benchmarks/*.py", "chosen", "results of finished runs are read as they were written"),
    Allowed(
        "hfssl/config/parsing.py",
        "class_shares|filter_novel|head_start|refit_head|student_start",
        "old names, which are answered with those of today",
    ),
    Allowed(
        "tests/config/test_parsing.py",
        "class.shares|student.start|what|texts",
        "old names, which are answered with those of today",
    ),
    Allowed("tests/tools/test_glossary.py", ".*", "its tables name the banned words"),
    Allowed("tools/check_glossary.py", ".*", "its tables name the banned words"),
)


@dataclass(frozen=True)
class Name:
    """A name as it stands in a file."""

    path: str
    line: int
    kind: str
    text: str


@dataclass(frozen=True)
class Finding:
    """A name that a rule forbids."""

    name: Name
    rule: Rule

    def __str__(self) -> str:
        name = self.name
        return f"{name.path}:{name.line}: {name.kind} `{name.text}` -> {self.rule.use}"


def snake(text: str) -> str:
    """A name, an option or a heading in lower snake case."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    return re.sub(r"\W+", "_", text).strip("_").lower()


def python_names(path: str, source: str) -> Iterator[Name]:
    """Names that a Python file defines, options that it spells out, and string keys that it writes or reads."""
    yield Name(path, 1, NAME, Path(path).stem)
    tree = ast.parse(source)
    yield from (Name(path, node.lineno, NAME, text) for node in tree.body for text in _targets(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield Name(path, node.lineno, NAME, node.name)
            kind = OPTION if re.search("Config$|Arguments$|^Preset", node.name) else NAME
            yield from (Name(path, item.lineno, kind, text) for item in node.body for text in _targets(item))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Name(path, node.lineno, NAME, node.name)
            arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            yield from (Name(path, argument.lineno, NAME, argument.arg) for argument in arguments)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield Name(path, node.lineno, NAME, node.attr)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"--[a-z][a-z0-9_-]*", str(node.value)):
            yield Name(path, node.lineno, OPTION, node.value)
        for key in _string_keys(node):
            yield Name(path, key.lineno, KEY, key.value)


def _targets(node: ast.stmt) -> list[str]:
    """Plain names that an assignment defines."""
    match node:
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _string_keys(node: ast.AST) -> list[ast.Constant]:
    """Keys of a dictionary display, of `x["key"]` and of `x.get("key")`, where they are strings."""
    match node:
        case ast.Dict(keys=keys):
            found: Iterable[ast.expr | None] = keys
        case ast.Subscript(slice=ast.Constant() as key):
            found = [key]
        case ast.Call(func=ast.Attribute(attr="get" | "pop" | "setdefault"), args=[ast.Constant() as key, *_]):
            found = [key]
        case _:
            return []
    return [key for key in found if isinstance(key, ast.Constant) and isinstance(key.value, str)]


def page_names(path: str, text: str) -> Iterator[Name]:
    """Headings of a Markdown or HTML page, fenced code left out."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= line.lstrip().startswith("```")
        heading = re.match(r"#+ +(.+)", line) or re.search(r"<(?:h[1-6]|th|title)[^>]*>([^<]+)", line)
        if heading and not fenced:
            yield Name(path, number, HEADING, heading[1].strip())


def recipe_names(path: str, text: str) -> Iterator[Name]:
    """Options that a YAML file sets."""
    for number, line in enumerate(text.splitlines(), 1):
        if option := re.match(r" *([a-z]\w*):", line):
            yield Name(path, number, OPTION, option[1])


READERS = {".py": python_names, ".md": page_names, ".html": page_names, ".yaml": recipe_names, ".yml": recipe_names}


def files(root: Path) -> list[Path]:
    """Every file that is checked: pages of the root, and the folders of `FOLDERS`."""
    found = [*root.glob("*.md"), *(path for folder in FOLDERS for path in (root / folder).rglob("*"))]
    # What is new in each version is told in the words of its time, and so are notes and cards of finished runs.
    skipped = ("CHANGELOG.md", "benchmarks/*.md", "model_cards/*")
    relative = {path: path.relative_to(root).as_posix() for path in found}
    return [
        path
        for path in sorted(found)
        if path.suffix in READERS and path.is_file() and not any(fnmatch(relative[path], skip) for skip in skipped)
    ]


def check(root: Path, exceptions: Sequence[Allowed] = EXCEPTIONS) -> list[Finding]:
    """Names below `root` that a rule forbids and no exception allows; each name of a file once."""
    names: dict[tuple[str, str, str], Name] = {}
    for path in files(root):
        relative = path.relative_to(root).as_posix()
        for name in READERS[path.suffix](relative, path.read_text(encoding="utf-8")):
            names.setdefault((name.path, name.kind, snake(name.text)), name)
    compiled = [(rule, re.compile(rule.pattern)) for rule in RULES]
    return [
        Finding(name, rule)
        for (path, kind, text), name in names.items()
        for rule, pattern in compiled
        if kind in rule.kinds and pattern.search(text) and fnmatch(path, rule.paths)
        if not any(fnmatch(path, allowed.paths) and re.fullmatch(allowed.pattern, text) for allowed in exceptions)
    ]


def main(argv: Sequence[str]) -> int:
    findings = check(ROOT)
    if "--count" in argv:
        counts = Counter(f"{finding.rule.pattern}  ->  {finding.rule.use}" for finding in findings)
        print("\n".join(f"{count:5}  {rule}" for rule, count in counts.most_common()))
    else:
        print("\n".join(map(str, findings)), end="\n" if findings else "")
    if findings:
        print(f"glossary: {len(findings)} banned names; the glossary in CONTRIBUTING.md has the words to use.")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
