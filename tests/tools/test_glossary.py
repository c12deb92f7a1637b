"""The glossary check finds banned words in names that a reader sees, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_glossary  # noqa: E402
from check_glossary import Allowed  # noqa: E402

BANNED = {
    "hfssl/names.py": [
        ("class Committee: ...", "Committee"),
        ("def form_committee(models): ...", "form_committee"),
        ("def fit(rows, *, class_shares=None): ...", "class_shares"),
        ("MOST_STEPS = 4", "MOST_STEPS"),
        ("def f(self):\n    self.neighborhood_ = 1", "neighborhood_"),
        ("class SelfTrainingConfig:\n    draw: str = 'threshold'", "draw"),
        ("class Settings:\n    refit_head: bool = True", "refit_head"),
        ("results = {'kept': 'refit'}", "kept"),
        ("title = results['chosen']", "chosen"),
        ("title = results.get('baseline')", "baseline"),
        ("parser.add_argument('--class-shares')", "--class-shares"),
    ],
    "docs/page.md": [("# A warm start on the labels", "A warm start on the labels")],
    "hfssl/reporting/page.html": [("<h2>Class shares</h2>", "Class shares")],
    "recipes/one/reviews.yaml": [("student_start: teacher", "student_start")],
}
CASES = [(path, text, name) for path, cases in BANNED.items() for text, name in cases]

FINE = {
    "hfssl/names.py": "def fit(warmup_steps, most_similar, class_prior, selection_strategy):\n    chosen = most = 1\n",
    "docs/page.md": "# Contrastive stage\n\nA committee in prose is for reviewers.\n\n```python\n# warm start\n```\n",
    "CHANGELOG.md": "# Class shares\n",
}


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("path", "text", "name"), CASES, ids=[name for *_, name in CASES])
def test_banned_words_are_found(tmp_path, path, text, name):
    write(tmp_path, path, text)
    found = check_glossary.check(tmp_path, exceptions=())
    assert [finding.name.text for finding in found] == [name]
    assert str(found[0]).startswith(f"{path}:")


def test_the_line_is_told(tmp_path):
    write(tmp_path, "hfssl/names.py", "import os\n\n\nFEWEST_LABELS = 2\n")
    (found,) = check_glossary.check(tmp_path, exceptions=())
    assert str(found) == "hfssl/names.py:4: name `FEWEST_LABELS` -> max_, min_ with a noun"


def test_a_file_is_named_by_the_glossary_too(tmp_path):
    write(tmp_path, "hfssl/committee.py", "")
    assert len(check_glossary.check(tmp_path, exceptions=())) == 1


def test_nothing_else_is_found(tmp_path):
    for path, text in FINE.items():
        write(tmp_path, path, text)
    assert check_glossary.check(tmp_path, exceptions=()) == []


def test_an_exception_holds_for_its_files_only(tmp_path):
    for path in ("hfssl/one.py", "hfssl/two.py"):
        write(tmp_path, path, "def baseline(): ...\n")
    found = check_glossary.check(tmp_path, [Allowed("hfssl/one.py", "baseline", "a peer of the benchmarks")])
    assert [finding.name.path for finding in found] == ["hfssl/two.py"]


def test_exceptions_of_the_tool_have_a_reason_and_a_file():
    for allowed in check_glossary.EXCEPTIONS:
        assert allowed.reason
        assert list(ROOT.glob(allowed.paths)), f"No file matches {allowed.paths}."


def test_the_exit_status_tells_whether_something_was_found():
    done = subprocess.run([sys.executable, "tools/check_glossary.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == (1 if check_glossary.check(ROOT) else 0), done.stderr
