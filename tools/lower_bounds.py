"""Tries the lower bounds that pyproject.toml promises: an environment with exactly these versions does the main job.

    python tools/lower_bounds.py                    # what `make lower-bounds` runs; downloads, takes minutes
    python tools/lower_bounds.py tests/data ...     # other tests than those of FAST_TESTS

uv resolves the package's own requirements to their lowest allowed versions and everything below them as usual
(`--resolution lowest-direct`). Then tools/tiny_fit.py runs there, and a few fast test files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "lower_bounds"
FAST_TESTS = ("tests/functional", "tests/metrics", "tests/data", "tests/config", "tests/runtime")
TEST_TOOLS = ("pytest==9.0.0", "pytest-timeout==2.4.0")


def run(command: Sequence[str], **environment: str) -> None:
    """Runs a command in the root of the repository; ends this process if it fails."""
    print(" ".join(command), flush=True)
    if status := subprocess.run(command, cwd=ROOT, env=os.environ | environment).returncode:
        sys.exit(status)


def uv(*words: str, **environment: str) -> None:
    """Runs uv, which looks into the same extra folders of wheels as pip."""
    links = os.environ.get("PIP_FIND_LINKS", "")
    run([sys.executable, "-m", "uv", *words], UV_FIND_LINKS=",".join(links.split()), **environment)


def main(argv: Sequence[str]) -> None:
    python = str(FOLDER / "bin" / "python")
    uv("venv", "--clear", "--python", sys.executable, str(FOLDER))
    uv("pip", "install", "--python", python, "--resolution", "lowest-direct", "--editable", ".")
    uv("pip", "install", "--python", python, *TEST_TOOLS)
    uv("pip", "freeze", "--python", python)
    run([python, "tools/tiny_fit.py", str(FOLDER / "tiny_fit")])
    tests = argv or [test for test in FAST_TESTS if (ROOT / test).exists()]
    run([python, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", *tests])


if __name__ == "__main__":
    main(sys.argv[1:])
