"""Builds wheel and sdist, checks what is in them, and tries the wheel in a clean environment.

    python tools/package.py                # what `make package` runs; needs the package index, takes minutes
    python tools/package.py --contents     # only builds and checks what is in the archives

Everything lies under build/package/. The wheel is installed with constraints.txt into an environment that holds
nothing else; there `hfssl --help`, `hfssl env` and tools/tiny_fit.py run, in an empty working folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "package"
DATA_SUFFIXES = (".md", ".html", ".css", ".json", ".typed")
SDIST = ("pyproject.toml", "README.md", "LICENSE")


def expected_files() -> list[str]:
    """Modules and data files of the package, relative to the root of the repository."""
    found = [
        path.relative_to(ROOT).as_posix() for path in (ROOT / "hfssl").rglob("*") if "__pycache__" not in path.parts
    ]
    return sorted(path for path in found if path.endswith((".py", *DATA_SUFFIXES)))


def missing_from(archive: Path, expected: Sequence[str]) -> list[str]:
    """Expected files that a wheel or an sdist lacks."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return sorted(set(expected) - set(wheel.namelist()))
    with tarfile.open(archive) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    return sorted({*expected, *SDIST} - names)


def other_files_in(wheel: Path) -> list[str]:
    """Files of a wheel that are no part of the package."""
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if not name.startswith(("hfssl/", "hfssl-"))]


def build() -> tuple[Path, Path]:
    """Builds both archives; returns the paths of wheel and sdist."""
    shutil.rmtree(WORK / "dist", ignore_errors=True)
    run([sys.executable, "-m", "build", "--outdir", str(WORK / "dist"), str(ROOT)])
    (wheel,), (sdist,) = (list((WORK / "dist").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    return wheel, sdist


def try_in_clean_environment(wheel: Path) -> None:
    """Installs the wheel into a new environment and does the main job in small there."""
    folder = WORK / "venv"
    venv.create(folder, clear=True, with_pip=True)
    python, command = folder / "bin" / "python", folder / "bin" / "hfssl"
    run([str(python), "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(wheel)])
    empty = WORK / "empty"
    shutil.rmtree(empty, ignore_errors=True)
    empty.mkdir()
    run([str(command), "--help"], empty)
    run([str(command), "env"], empty)
    run([str(python), str(ROOT / "tools" / "tiny_fit.py"), str(empty / "tiny_fit")], empty)


def run(command: Sequence[str], folder: Path = ROOT) -> None:
    """Runs a command without this environment's PYTHONPATH; ends this process if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if status := subprocess.run(command, cwd=folder, env=environment).returncode:
        sys.exit(f"`{' '.join(command)}` ended with status {status}.")


def main(argv: Sequence[str]) -> None:
    wheel, sdist = build()
    expected = expected_files()
    wrong = [f"{archive.name} lacks {name}" for archive in (wheel, sdist) for name in missing_from(archive, expected)]
    wrong += [f"{wheel.name} holds {name}, which is no part of the package" for name in other_files_in(wheel)]
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{wheel.name} and {sdist.name} hold all {len(expected)} files of the package.", flush=True)
    if "--contents" not in argv:
        try_in_clean_environment(wheel)
        print(f"package: {wheel} works in a clean environment.")


if __name__ == "__main__":
    main(sys.argv[1:])
