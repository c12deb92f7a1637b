"""Prints the coverage of each package of hfssl, a line a package, and what has changed since an earlier printing.

python tools/coverage_by_package.py                      # reads .coverage, as `make coverage` leaves it
python tools/coverage_by_package.py --save before.json   # also keeps the numbers
python tools/coverage_by_package.py --against before.json   # exit status 1 if a package fell by more than 0.5 points
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 0.5  # points; a line that only a race reaches must not fail a run


def by_package(files: Mapping[str, Mapping]) -> dict[str, tuple[int, int]]:
    """Covered and all statements of each package, and of the whole, from the `files` of coverage's JSON report."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for path, report in files.items():
        parts = Path(path).parts
        inside = parts[parts.index("hfssl") + 1 :]
        for package in (inside[0] if len(inside) > 1 else "(top)", "all"):
            sums[package][0] += report["summary"]["covered_lines"]
            sums[package][1] += report["summary"]["num_statements"]
    return {package: (covered, statements) for package, (covered, statements) in sorted(sums.items())}


def percent(covered: int, statements: int) -> float:
    """Coverage in percent; a package without statements is covered."""
    return 100.0 * covered / statements if statements else 100.0


def read_report(data_file: str) -> dict[str, tuple[int, int]]:
    """Coverage by package from a `.coverage` file."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        command = [sys.executable, "-m", "coverage", "json", "--quiet", "--data-file", data_file, "-o", str(report)]
        subprocess.run(command, cwd=ROOT, check=True)
        return by_package(json.loads(report.read_text(encoding="utf-8"))["files"])


def main() -> int:
    parser = argparse.ArgumentParser(description="Coverage of each package of hfssl.")
    parser.add_argument("--data-file", default=str(ROOT / ".coverage"), help="Coverage data to read.")
    parser.add_argument("--save", type=Path, help="Write the numbers to this JSON file.")
    parser.add_argument("--against", type=Path, help="Compare with the numbers of this JSON file.")
    options = parser.parse_args()
    found = read_report(options.data_file)
    before = json.loads(options.against.read_text(encoding="utf-8")) if options.against else {}
    fallen = []
    print("package        statements  covered")
    for package, (covered, statements) in found.items():
        now, line = percent(covered, statements), ""
        if package in before:
            change = now - before[package]
            line = f"  ({change:+.1f})"
            fallen += [package] if change < -TOLERANCE else []
        print(f"{package:<14} {statements:>10} {now:>7.1f}%{line}")
    if options.save:
        options.save.write_text(
            json.dumps({name: percent(*counts) for name, counts in found.items()}, indent=1) + "\n"
        )
    if fallen:
        print(f"coverage: fell by more than {TOLERANCE} points in {', '.join(fallen)}.")
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
