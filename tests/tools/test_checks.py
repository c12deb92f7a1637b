"""The development scripts: input that they accept and input that they reject."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_pyproject  # noqa: E402
import check_types  # noqa: E402
import coverage_by_package  # noqa: E402
import package  # noqa: E402

PYPROJECT = """
[project]
name = "hfssl"
dynamic = ["version"]
dependencies = ["numpy>=2.0", "PyYAML>=6.0"]
[project.optional-dependencies]
dev = ["hfssl[demo]", "ruff>=0.17,<1"]
demo = ["gradio>=6.31"]
"""
CONSTRAINTS = "# a comment\ngradio==6.31.0\nnumpy==2.4.6\npyyaml==6.0.3\nruff==0.17.6\n"


def test_the_projects_own_files_agree():
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "constraints.txt")]
    assert check_pyproject.problems(*texts) == []


def test_files_that_agree_have_no_problems():
    assert check_pyproject.problems(PYPROJECT, CONSTRAINTS) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("ruff==0.17.6\n", "", "no pin for ruff"),
        ("numpy==2.4.6", "numpy==1.26.0", "pins numpy 1.26.0, outside >=2.0"),
        ("ruff==0.17.6", "ruff==1.0.0", "pins ruff 1.0.0, outside"),
        ("numpy==2.4.6\n", "numpy==2.4.6\nnumpy==2.4.6\n", "names numpy twice"),
        ("gradio==6.31.0\nnumpy==2.4.6\n", "numpy==2.4.6\ngradio==6.31.0\n", "not sorted at gradio"),
    ],
)
def test_constraints_that_disagree_are_told(old, new, problem):
    (found,) = check_pyproject.problems(PYPROJECT, CONSTRAINTS.replace(old, new))
    assert problem in found


def test_a_second_version_number_is_told():
    (found,) = check_pyproject.problems(PYPROJECT.replace('dynamic = ["version"]', 'version = "1.0"'), CONSTRAINTS)
    assert "hfssl/__init__.py alone" in found


def test_every_module_with_a_public_name_is_checked_for_types():
    import hfssl

    files = {path.relative_to(ROOT).as_posix() for path in check_types.public_files(ROOT / "hfssl")}
    modules = {getattr(hfssl, name).__module__ for name in hfssl.__all__ if name != "__version__"}
    assert set(hfssl.__all__) == {"__version__", *hfssl._PUBLIC}
    assert {module.replace(".", "/") + ".py" for module in modules} <= files
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_coverage_is_summed_by_package():
    files = {
        f"hfssl/{path}": {"summary": {"covered_lines": covered, "num_statements": statements}}
        for path, covered, statements in [("errors.py", 1, 1), ("data/a.py", 1, 4), ("data/views/b.py", 3, 4)]
    }
    sums = coverage_by_package.by_package(files)
    assert sums == {"(top)": (1, 1), "all": (5, 9), "data": (4, 8)}
    assert coverage_by_package.percent(*sums["data"]) == 50.0
    assert coverage_by_package.percent(0, 0) == 100.0


def test_what_an_archive_lacks_is_told(tmp_path):
    expected = ["hfssl/py.typed", "hfssl/templates/card.md"]
    with zipfile.ZipFile(tmp_path / "hfssl.whl", "w") as wheel:
        wheel.writestr("hfssl/py.typed", "")
        wheel.writestr("tests/conftest.py", "")
    assert package.missing_from(tmp_path / "hfssl.whl", expected) == ["hfssl/templates/card.md"]
    assert package.other_files_in(tmp_path / "hfssl.whl") == ["tests/conftest.py"]
    with tarfile.open(tmp_path / "hfssl.tar.gz", "w:gz") as sdist:
        for name in (*expected, "README.md"):
            sdist.add(ROOT / "README.md", f"hfssl-1.0/{name}")
    assert package.missing_from(tmp_path / "hfssl.tar.gz", expected) == ["LICENSE", "pyproject.toml"]


def test_a_wrong_layer_fails_the_layer_contract(tmp_path):
    """The project's own contracts on a package of one module a layer, in which a formula imports the command line."""
    import tomllib

    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"][0]["layers"]
    (tmp_path / "pyproject.toml").write_text(pyproject)
    (tmp_path / "hfssl").mkdir()
    (tmp_path / "hfssl/__init__.py").write_text("import hfssl.cli\n")  # as the public names do
    for name in (name.strip("() ") for layer in layers for name in layer.split(":")):
        (tmp_path / f"hfssl/{name}.py").touch()

    def lint() -> subprocess.CompletedProcess:
        command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = lint()
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "hfssl/functional.py").write_text("import hfssl.cli\n")
    assert "hfssl.functional -> hfssl.cli" in lint().stdout
    (tmp_path / "hfssl/functional.py").write_text("import hfssl.models\n")
    assert lint().returncode == 0
    (tmp_path / "hfssl/models.py").write_text("import hfssl.functional\n")
    done = lint()
    assert done.returncode == 1
    assert "No circle among packages or files BROKEN" in done.stdout
