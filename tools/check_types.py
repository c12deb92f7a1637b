"""Checks the types of the public surface with pyright (basic): every module from which `hfssl` exports a name.

And a user's file that calls every public name, `tests/helpers/user_code.py`.

    python tools/check_types.py                # more options (--outputjson, say) go to pyright

The list of modules is read from hfssl/__init__.py. Needs no network: checker and node are wheels (extra `dev`).
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
USER_CODE = ROOT / "tests" / "helpers" / "user_code.py"


def public_files(package: Path) -> list[Path]:
    """`__init__.py` of `package` and the files of all modules that it imports for type checkers."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    modules = {module for module in modules if module.split(".")[0] == package.name}
    files = [package.parent.joinpath(*module.split(".")) for module in sorted(modules)]
    return [
        package / "__init__.py",
        *(path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for path in files),
    ]


def main(argv: Sequence[str]) -> int:
    files = [str(path.relative_to(ROOT)) for path in [*public_files(ROOT / "hfssl"), USER_CODE]]
    command = [sys.executable, "-m", "pyright", "--warnings", "--pythonpath", sys.executable, *argv, *files]
    # A newer version of pyright is no news for who runs a pinned one.
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
