"""Checks that pyproject.toml and constraints.txt agree.

    python tools/check_pyproject.py

Every requirement of the package and of its extras has a pin in constraints.txt, inside its bounds; the constraints are
sorted and name each package once; the version stands in hfssl/__init__.py and nowhere else.
"""

from __future__ import annotations

import sys
import tomllib
from itertools import pairwise
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def requirements(project: dict) -> list[Requirement]:
    """Requirements of the package and of its extras, without extras that name the package itself."""
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    found = [Requirement(line) for line in lines]
    return [requirement for requirement in found if requirement.name != project["name"]]


def problems(pyproject: str, constraints: str) -> list[str]:
    """What is wrong with the two files, one sentence each."""
    project = tomllib.loads(pyproject)["project"]
    pins = [Requirement(line) for line in constraints.splitlines() if line and not line.startswith("#")]
    names = [canonicalize_name(pin.name) for pin in pins]
    found = [
        f"constraints.txt names {name} twice." for name in sorted({name for name in names if names.count(name) > 1})
    ]
    plain = [pin.name.lower() for pin in pins]
    found += [f"constraints.txt is not sorted at {after}." for before, after in pairwise(plain) if after < before]
    if "version" in project or "version" not in project.get("dynamic", ()):
        found.append("pyproject.toml holds a version; expected it in hfssl/__init__.py alone (dynamic).")
    versions = dict(zip(names, (next(iter(pin.specifier)).version for pin in pins), strict=True))
    for requirement in requirements(project):
        version = versions.get(canonicalize_name(requirement.name))
        if version is None:
            found.append(f"constraints.txt has no pin for {requirement.name}.")
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(f"constraints.txt pins {requirement.name} {version}, outside {requirement.specifier}.")
    return found


def main() -> int:
    found = problems(*((ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "constraints.txt")))
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
