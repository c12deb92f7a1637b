"""README and documentation: every command and every Python block runs, from the first line of a page to its last.

Each page runs in a separate folder with the tables that the pages name, with a tiny backbone instead of the real one,
two steps instead of hundreds, and, where it pushes, a Hub on this machine. Installation commands, commands of other
programs and benchmarks are parsed only. A block that is neither run nor parsed fails the test.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification

import hfssl
from hfssl.cli.main import main
from hfssl.cli.recipe import parse_recipe
from hfssl.config.arguments import DemoArguments
from hfssl.config.methods import METHODS
from hfssl.config.parsing import parse
from hfssl.pipeline.presets import PRESETS, Preset
from tests.helpers.texts import CUES, make_text

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = {path.relative_to(ROOT).as_posix(): path for path in [README, *sorted((ROOT / "docs").rglob("*.md"))]}
WITH_CHECKS = ("docs/csv_to_hub.md", "docs/plain_peft.md", "docs/several_gpus.md")  # each has a test of its own
MINILM = "sentence-transformers/all-MiniLM-L6-v2"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE_NAME = re.compile(r"# ([\w.]+\.(?:py|yaml))\n")  # a first line that names the file which the block is
NOT_RUN = ("text",)  # output of commands
INSTALLATION = ("py", "python3", ".", r".venv\Scripts\activate")
OTHER_PROGRAMS = ("hf", "trackio")

# Of huggingface_hub's own upload over plain HTTP, which the real Hub has replaced by Xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


def text_of(page: str) -> str:
    return PAGES[page].read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of each fenced block."""
    found = FENCE.findall(text)
    assert text.count("```") == 2 * len(found), "a fenced block is not closed, or indented"
    return found


def commands(code: str) -> list[list[str]]:
    """The words of each command; comments are left out, lines that end with a backslash are joined."""
    posix = "\\" not in code.replace("\\\n", "")  # a path of Windows is no escape
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True, posix=posix))]


def write_tables(folder: Path) -> None:
    """Every table that a page names: `reviews.csv` (36 of 90 rows labeled) and others."""
    names = list(CUES)
    labeled = [(make_text(i, names[i % 3]), names[(i + (i % 11 == 5)) % 3]) for i in range(120)]  # some are wrong
    partly = [(text, name if i < 36 else "") for i, (text, name) in enumerate(labeled[:90])]
    tables = {
        "reviews.csv": ("sentiment", partly),
        "new.csv": ("sentiment", partly[40:]),
        "more.csv": ("sentiment", [(f"{text} slow", "") for text, _ in labeled[90:]]),
        "labeled.csv": ("label", labeled),
        "numbers.csv": ("label", [(text, names.index(name)) for text, name in labeled if name != "plot"][:40]),
    }
    for name, (column, rows) in tables.items():
        with open(folder / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", column), *rows])
    for name, part in (("train.parquet", labeled[:90]), ("test.parquet", labeled[90:])):
        columns = {"text": [text for text, _ in part], "label": [label for _, label in part]}
        pq.write_table(pa.table(columns), folder / name)


def short(preset: Preset) -> Preset:
    """The preset with two steps in each stage, and heads without regression.

    The tiny backbone gives nearly equal features, on which logistic regression has weights of a size that ONNX Runtime
    cannot repeat to 1e-4.
    """
    changed = {"max_steps": 2, "head_init": "random", "retrain_head": False}
    parts = {entry.name: getattr(preset, entry.name) for entry in fields(preset)}
    return replace(
        preset,
        **{
            name: part | {option: value for option, value in changed.items() if option in part}
            for name, part in parts.items()
            if isinstance(part, dict)
        },
    )


@pytest.fixture(scope="session")
def earlier_runs(tmp_path_factory) -> tuple[Path, dict[tuple[str, ...], Path]]:
    """A folder for runs of `hfssl fit`, by their options: a command that several pages show runs once."""
    return tmp_path_factory.mktemp("runs"), {}


class Reader:
    """Does what a page says, in the current folder.

    Args:
        backbone (`Path`): Takes the place of MiniLM.
        earlier (`tuple`): See `earlier_runs`.
    """

    def __init__(self, backbone: Path, earlier: tuple[Path, dict[tuple[str, ...], Path]]):
        self.backbone, self.earlier = str(backbone), earlier
        self.names: dict[str, Any] = {"__name__": "__page__"}  # what the Python blocks share

    def read(self, text: str) -> dict[str, Any]:
        """Runs all blocks in their order; returns the names that the Python blocks have left."""
        for language, code in blocks(text):
            if named := FILE_NAME.match(code):
                Path(named[1]).write_text(self._shortened(code), encoding="utf-8")
            elif language == "python":
                exec(compile(self._shortened(code), "page", "exec"), self.names)
            elif language in ("bash", "powershell"):
                for words in commands(code):
                    self._command(words)
            else:
                assert language in NOT_RUN, f"a block of '{language}' is neither run nor parsed:\n{code}"
        return self.names

    def _shortened(self, code: str) -> str:
        return re.sub(r"max_steps(=|: )\d+", r"max_steps\g<1>2", code.replace(MINILM, self.backbone))

    def _command(self, words: list[str]) -> None:
        program = words[0]
        script = next((word for word in words if word.endswith(".py")), "")
        if program == "hfssl":
            self._hfssl(words[1:])
        elif program == "pip":
            check_pip(words)
        elif program == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), words
        elif script == "recipes/train.py":
            check_recipe(words)
        elif script.startswith("benchmarks/"):
            source = (ROOT / script).read_text(encoding="utf-8")
            if "--grid" in words:  # which has a parser of its own
                source += (ROOT / "benchmarks" / f"{words[words.index('--grid') + 1]}.py").read_text(encoding="utf-8")
            assert all(f'"{word}"' in source for word in words if word.startswith("--")), words
        elif script and Path(script).is_file():  # a block of this page
            self._script(script, words[words.index(script) + 1 :])
        elif program in OTHER_PROGRAMS:
            assert importlib.metadata.entry_points(group="console_scripts", name=program), words
        else:
            assert program in INSTALLATION, f"a command is neither run nor parsed: {shlex.join(words)}"

    def _hfssl(self, words: list[str]) -> None:
        if words[0] == "fit":
            self._fit(words)
        elif words[0] == "demo":  # serves until Ctrl-C
            assert parse([DemoArguments], ["--folder", *words[1:]])[0].folder == words[1]
        else:
            again = ["--overwrite"] if words[0] == "predict" else []
            assert main([*words, *again]) == 0, words

    def _fit(self, words: list[str]) -> None:
        """Runs `hfssl fit`, or takes the run of a page that had the same options."""
        settings = Path(words[words.index("--config") + 1]) if "--config" in words else None
        in_file = yaml.safe_load(settings.read_text(encoding="utf-8"))["output_dir"] if settings else None
        place = words.index("--output-dir") if "--output-dir" in words else None
        output = Path(in_file if place is None else words[place + 1])
        options = tuple(words if place is None else words[:place] + words[place + 2 :])
        folder, runs = self.earlier
        if output.exists() and "--resume" not in words:
            shutil.rmtree(output)
        if options not in runs or settings or "--resume" in words:
            assert main([*words, "--backbone", self.backbone, "--quiet"]) == 0, words
            runs[options] = shutil.copytree(output, folder / str(len(runs)))
        else:
            shutil.copytree(runs[options], output)

    def _script(self, script: str, options: list[str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [script, *options, "--backbone", self.backbone])
            with pytest.raises(SystemExit) as end:
                runpy.run_path(script, run_name="__main__")
        assert end.value.code == 0, script


def check_pip(words: list[str]) -> None:
    """`pip install` names this package with extras that it has, and files that are there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    rest = words[2:]
    if rest[0] == "-c":
        assert (ROOT / rest[1]).is_file(), words
        rest = rest[2:]
    assert words[1] == "install", words
    for requirement in rest:
        named = re.fullmatch(r"(?:\.|hfssl)(?:\[([\w,]+)\])?", requirement)
        assert named, words
        assert set((named[1] or "").split(",")) - {""} <= set(extras), words


def check_recipe(words: list[str]) -> None:
    """The launcher's files are there, and the recipe's options are its method's."""
    start = words.index("recipes/train.py")
    for name in words[:start]:
        assert not name.endswith(".yaml") or (ROOT / name).is_file(), words
    options = [str(ROOT / word) if word.startswith("recipes/") else word for word in words[start + 1 :]]
    assert parse_recipe(options).method in METHODS


@pytest.fixture
def reader(tmp_path, monkeypatch, tiny_backbone, earlier_runs) -> Iterator[Reader]:
    """Someone in a folder with tables, with short presets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for name, preset in list(PRESETS.items()):
        monkeypatch.setitem(PRESETS, name, short(preset))
    write_tables(tmp_path)
    known, methods = set(sys.modules), dict(METHODS)
    yield Reader(tiny_backbone, earlier_runs)
    for name in set(sys.modules) - known:  # a module of one page's folder is not that of another's
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
    METHODS.clear()
    METHODS.update(methods)


def paged(name: str):
    """A page as a parameter; those of methods that share most of their code are slow, but for one."""
    alike = [f"docs/methods/{method}.md" for method, row in METHODS.items() if "consistency" in row.config]
    slow = (name in alike and "fixmatch" not in name) or name == "docs/your_own_data.md"
    return pytest.param(name, marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize("page", [paged(name) for name in PAGES if "```" in text_of(name) and name not in WITH_CHECKS])
def test_every_block_runs(page, reader):
    reader.read(text_of(page))


IDS = torch.arange(5, 13).view(2, 4)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_from_a_csv_to_the_hub(reader, hub, capsys):
    hub.tokens["hf_writer"] = ("me", "write")
    left = reader.read(text_of("docs/csv_to_hub.md"))
    assert set(left["model"].config.id2label.values()) == set(CUES)
    assert torch.equal(logits(left["model"]), logits(hfssl.from_pretrained("runs/reviews/model")))
    assert Path("predictions.csv").is_file()
    assert "Nothing was sent" in capsys.readouterr().out
    assert "license: apache-2.0" in card_of(hub, "me/reviews")


def test_the_adapter_with_plain_peft(reader):
    left = reader.read(text_of("docs/plain_peft.md"))
    expected = logits(hfssl.from_pretrained("runs/reviews/adapter"))
    plain = AutoModelForSequenceClassification.from_pretrained("merged")
    for model in (plain, left["model"]):
        torch.testing.assert_close(logits(model), expected, rtol=2e-6, atol=1e-5)  # merged: sums in another order
        assert set(model.config.id2label.values()) == set(CUES)


def test_a_mean_pooled_adapter_is_refused_by_plain_peft(tiny_backbone, tmp_path):
    """As docs/plain_peft.md states: an error, and never silently other logits."""
    from peft import PeftModel

    from hfssl.models.adapters import add_adapter, build_lora_config, save_adapter

    model = hfssl.load_classifier(tiny_backbone, ["a", "b"], pooling="mean", seed=0)
    save_adapter(add_adapter(model, build_lora_config(model), seed=0), tmp_path / "adapter", ["a", "b"])
    assert json.loads((tmp_path / "adapter/hfssl_labels.json").read_text())["pooling"] == "mean"
    base = AutoModelForSequenceClassification.from_pretrained(tiny_backbone, num_labels=2)
    with pytest.raises(ValueError, match="[Tt]arget modules"):
        PeftModel.from_pretrained(base, tmp_path / "adapter")


def test_several_gpus(reader, hub):
    hub.tokens["hf_writer"] = ("me", "write")
    text = text_of("docs/several_gpus.md")
    reader.read(text)
    assert hfssl.from_pretrained("me/mine").config.id2label == {0: "dull", 1: "fun"}
    assert "license: apache-2.0" in card_of(hub, "me/mine")
    named = set(re.findall(r"--config_file (\S+)", text))
    assert named == {f"recipes/accelerate/{path.name}" for path in (ROOT / "recipes/accelerate").glob("*.yaml")}


def card_of(hub: Any, repo: str) -> str:
    return hub.repos[repo].at("main").files["README.md"].content.decode()


@pytest.mark.parametrize(
    "text",
    [
        "```bash\ncurl somewhere\n```\n",
        "```bash\nhfssl fit --train reviews.csv --output-dir runs/x --no-such-option 1\n```\n",
        "```bash\npip install hfssl[nothing]\n```\n",
        "```bash\nmake coffee\n```\n",
        "```bash\npython recipes/train.py --config recipes/supervised/reviews.yaml --no_such_option 1\n```\n",
        "```python\nimport hfssl\nhfssl.no_such_name\n```\n",
        "```julia\nprintln(1)\n```\n",
        "```yaml\na: 1\n```\n",
        "  ```bash\n  hfssl --version\n  ```\n",
    ],
)
def test_a_block_that_is_wrong_or_unknown_fails(text, reader):
    with pytest.raises((AssertionError, AttributeError, hfssl.errors.HfsslError)):
        reader.read(text)


# --- the README ------------------------------------------------------------------------------------------------------


def links_of(path: Path) -> list[str]:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    return [link for link in links if "://" not in link]


@pytest.mark.parametrize("path", [README, ROOT / "recipes/README.md", ROOT / "model_cards/README.md"], ids=str)
def test_links_lead_somewhere(path):
    links = links_of(path)
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_readme_begins_with_the_two_commands_and_is_short():
    text = text_of("README.md")
    first = [words[:2] for language, code in blocks(text) if language == "bash" for words in commands(code)]
    assert first[:2] == [["make", "quickstart"], ["make", "test"]]
    assert len(text.split()) <= 1200


# --- the table of methods --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hooks() -> dict[str, Callable[..., Any]]:
    """What `docs/hooks.py` defines."""
    return runpy.run_path(str(ROOT / "docs/hooks.py"))


def test_the_table_of_methods_is_made_from_the_registry(hooks):
    page = hooks["with_table"](text_of("docs/methods/index.md"), METHODS)
    rows = re.findall(r"^\| \[`(\w+)`\]\((\w+)\.md\) \|", page, re.MULTILINE)
    assert rows == [(name, name) for name in METHODS if f"docs/methods/{name}.md" in PAGES]


def test_a_new_row_is_in_the_table(hooks):
    page = text_of("docs/methods/index.md")
    more = METHODS | {"toy": replace(METHODS["supervised"], summary="a toy")}
    assert "| `toy` | `SupervisedTrainer` | classifier | labeled | a toy |" in hooks["with_table"](page, more)


WITH_PAGE = sorted(path.stem for path in (ROOT / "docs/methods").glob("*.md") if path.stem != "index")


@pytest.mark.parametrize("name", WITH_PAGE)
def test_a_page_is_that_of_a_method_and_the_readme_links_to_it(name):
    """A method may be without a page until the next release: see "Releasing" in CONTRIBUTING.md."""
    assert name in METHODS
    assert f"[{name}](docs/methods/{name}.md)" in text_of("README.md")


@pytest.mark.parametrize("name", WITH_PAGE)
def test_the_options_that_a_method_page_lists_exist(name):
    tables = re.findall(r"^\| option \|.*\n\|[-|]+\n((?:\|.*\n)+)", text_of(f"docs/methods/{name}.md"), re.MULTILINE)
    listed = {
        option
        for table in tables
        for row in table.splitlines()
        for option in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert listed
    assert listed <= {entry.name for entry in fields(METHODS[name].config_class)}


def test_a_table_of_options_is_made_from_the_help_texts(hooks):
    table = hooks["options_table"]("PredictArguments")
    assert "| `input` | `str` | required | Table to label: CSV, TSV, JSONL or Parquet. |" in table
    assert "| `max_tokens` | `int` | `8192` |" in table
    with pytest.raises(LookupError, match="NoSuchArguments"):
        hooks["options_table"]("NoSuchArguments")


def test_a_table_of_fields_is_made_from_the_schema(hooks):
    metrics = {"type": "object", "properties": {"ece": {"type": "number", "description": "Calibration error."}}}
    by_part = {"type": "object", "additionalProperties": {"anyOf": [{"$ref": "#/$defs/metrics"}, {"type": "null"}]}}
    stage = {"type": "object", "properties": {"name": {"type": "string"}}}
    schema = {
        "properties": {
            "schema_version": {"const": 2},
            "stages": {"type": "array", "items": stage},
            "final_metrics": {"$ref": "#/$defs/by_part", "description": "Of the final model."},
        },
        "$defs": {"metrics": metrics, "by_part": by_part},
    }
    rows = hooks["schema_table"](schema).splitlines()[2:]
    assert rows == [
        "| `schema_version` | always 2 |  |",
        "| `stages` | array |  |",
        "| `stages[]` | object |  |",
        "| `stages[].name` | string |  |",
        "| `final_metrics` | object | Of the final model. |",
        "| `final_metrics.*` | object or null |  |",
        "| `final_metrics.*.ece` | number | Calibration error. |",
    ]


BROKEN = {
    "[a page](nowhere.md)": "nowhere.md",
    "[a section](quickstart.md#nothing)": "#nothing",
    "::: hfssl.no_such_name": "no_such_name",
}


def test_a_broken_link_or_name_fails_the_strict_build(tmp_path):
    """By the options of `make docs`, on a site of two pages."""
    shown = subprocess.run(["make", "--dry-run", "docs"], cwd=ROOT, capture_output=True, text=True, check=True)
    command = shlex.split(next(line for line in shown.stdout.splitlines() if "mkdocs" in line))
    options = command[command.index("mkdocs") + 1 :]
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    settings = settings.replace("paths: [.]", f"paths: [{ROOT}]").replace("hooks:\n  - docs/hooks.py\n", "")
    (tmp_path / "mkdocs.yml").write_text(settings, encoding="utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/quickstart.md").write_text("# Quickstart\n", encoding="utf-8")
    for text, named in {"[a page](quickstart.md)": "", **BROKEN}.items():
        (tmp_path / "docs/index.md").write_text(f"# Home\n\n{text}\n", encoding="utf-8")
        words = [sys.executable, "-m", "mkdocs", *options]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == (text in BROKEN), done.stderr
        assert named in done.stderr
