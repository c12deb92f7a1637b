"""Development data: the data sets without their test parts, so that nothing can be chosen by these.

    python benchmarks/development.py --output-dir /tmp/development
    python benchmarks/compare.py --data /tmp/development --results /tmp/compare --methods hfssl_standard --seeds 0
    python benchmarks/ablation.py --data /tmp/development --results /tmp/ablation.json

Of each data set in `../shared/data` with a training part of 1,500 rows or more, 800 rows drawn by a fixed seed become
the test part, and up to 5,800 others the training part. Settings are compared on these; the real test parts are for
reports. Not below this project's own folder: it holds no copies of the data.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from grid import SHARED

MIN_ROWS, TEST_ROWS, MAX_TRAINING_ROWS = 1500, 800, 5800
SEED = 0


def cut(folder: Path, output: Path, *, without: str | None = None) -> dict[str, int] | None:
    """Writes `train.parquet`, `test.parquet` and `labels.json` to `output`.

    Args:
        folder: of the data set.
        output: folder to write to.
        without: name of a label whose rows are left out.

    Returns:
        The rows in each part; `None` where the data set has another task, or too few rows.
    """
    meta = json.loads((folder / "META.json").read_text(encoding="utf-8"))
    if meta.get("task") != "text-classification":
        return None
    rows, names = read_rows(folder, "train", without)
    if len(rows) < MIN_ROWS:
        return None
    order = np.random.default_rng(SEED).permutation(len(rows))
    most_test = min(TEST_ROWS, len(rows) // 4)
    parts = {"test": order[:most_test], "train": order[most_test : most_test + MAX_TRAINING_ROWS]}
    _write({name: rows.iloc[np.sort(chosen)] for name, chosen in parts.items()}, names, output)
    return {name: len(chosen) for name, chosen in parts.items()}


def copy(folder: Path, output: Path, *, without: str) -> None:
    """Writes the training and the real test part to `output`, without the rows of a label."""
    parts = {name: read_rows(folder, name, without) for name in ("train", "test")}
    _write({name: rows for name, (rows, _) in parts.items()}, parts["train"][1], output)


def read_rows(folder: Path, part: str, without: str | None = None) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a part and the label names; without a label, the numbers of the others close the gap."""
    rows = pd.read_parquet(folder / f"{part}.parquet")
    names = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    if without is not None:
        gap = names.index(without)
        rows = rows[rows["label"] != gap]
        rows = rows.assign(label=rows["label"] - (rows["label"] > gap))
        names = [name for name in names if name != without]
    return rows, names


def _write(parts: Mapping[str, pd.DataFrame], names: list[str], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        rows.to_parquet(output / f"{name}.parquet", index=False)
    (output / "labels.json").write_text(json.dumps(names), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the data sets")
    parser.add_argument("--output-dir", type=Path, required=True)
    options = parser.parse_args()
    if not options.data.is_dir():
        raise SystemExit(f"Expected the data sets in {options.data}, which is not there.")
    for folder in sorted(path.parent for path in options.data.glob("*/META.json")):
        if (counts := cut(folder, options.output_dir / folder.name)) is not None:
            print(f"{folder.name}: {counts['train']:,} rows to train on, {counts['test']:,} to measure by")


if __name__ == "__main__":
    main()
