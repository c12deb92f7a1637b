"""Every public name has an `Example:` in its docstring, and every example in the package runs.

Examples that train use a tiny backbone. The names in `surroundings` (`backbone`, `table`, `folder`, ...) are defined
for all examples, so that an example shows the call and not its preparation.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import hfssl
from tests.helpers.tiny_tables import rows, write

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules_with_examples() -> list[str]:
    """Names of the modules of hfssl whose source holds an example."""
    root = Path(hfssl.__file__).parent
    files = [path for path in root.rglob("*.py") if ">>>" in path.read_text(encoding="utf-8")]
    return sorted(".".join(path.relative_to(root.parent).with_suffix("").parts) for path in files)


@pytest.mark.parametrize("name", sorted(set(hfssl.__all__) - {"__version__"}))
def test_every_public_name_has_an_example(name):
    docstring = inspect.getdoc(getattr(hfssl, name)) or ""
    assert "Example" in docstring, f"hfssl.{name} has no example"
    assert ">>>" in docstring, f"the example of hfssl.{name} cannot be run"


@pytest.fixture
def surroundings(tiny_backbone, tmp_path, monkeypatch):
    """What examples may use: a tiny backbone, a table of two classes with unlabeled rows, and an empty folder."""
    from datasets import Dataset

    from hfssl.models.backbones import load_tokenizer
    from hfssl.pipeline.presets import PRESETS
    from tests.helpers.fit_tiny import TINY

    monkeypatch.setitem(PRESETS, "quick", TINY)
    table = write(tmp_path / "reviews.csv", rows(each=8, unlabeled=24))
    texts = [f"a {cue} film number {number}" for number in range(4) for cue in ("good", "dull")]
    monkeypatch.chdir(tmp_path)
    return {
        "backbone": str(tiny_backbone),
        "table": str(table),
        "folder": tmp_path / "out",
        "texts": texts,
        "dataset": Dataset.from_dict({"text": texts, "label": [0, 1] * 4}),
        "pool": Dataset.from_dict({"text": [f"{text} again" for text in texts]}),
        "tokenizer": load_tokenizer(tiny_backbone),
    }


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_give_what_they_show(name, surroundings):
    module = importlib.import_module(name)
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner(optionflags=FLAGS)
    out: list[str] = []
    for number, test in enumerate(finder.find(module, extraglobs=surroundings)):
        test.globs["folder"] = surroundings["folder"] / str(number)  # each example has an empty one
        runner.run(test, out=out.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(out)
