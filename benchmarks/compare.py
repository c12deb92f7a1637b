"""hfssl and its peers: the same labeled, unlabeled and test rows, the same backbone, one process at a time.

    python benchmarks/compare.py                                   # the grid; hours on two cores
    python benchmarks/compare.py --datasets trec6 --methods setfit hfssl_standard --seeds 0
    python benchmarks/compare.py --datasets wrench_youtube         # also imdb_5k, clinc150: not in the grid
    python benchmarks/compare.py --quick                           # two small cells, for CI
    python benchmarks/compare.py --show                            # the table and the plot of what is kept
    python benchmarks/compare.py --show --seeds 0                  # ... the table of one seed
    python benchmarks/compare.py --grid wide --help                # thirteen data sets at two budgets: `wide.py`

Needs `pip install -c constraints.txt -e ".[benchmarks]"` (SetFit), `make quickstart-data` (the MiniLM backbone) and
`../shared/data/DATASET/{train,test}.parquet`. One method on one split is a process of its own and is kept in
`benchmarks/results/compare/DATASET-LABELS-METHOD-SEED.json`; what is kept is not run again.

Rows: hfssl's own split at K labels a class. What `hfssl fit` holds back for its choices, a fifth of the labels
(`validation`) and a tenth of the pool (`proxy`), the peers train on. Seconds: training and labeling the test part;
imports and making the split are left out for all. hfssl's are those of the whole of `fit`, report and card included.
With `--untimed`, where other work runs at the same time, none are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import wide
from cells import METHODS, SPLITS, run_job, run_process
from compare_tables import draw, read_cells, report
from grid import GRID, HERE, LABELS_PER_CLASS, ROOT, SHARED, backbone

GRIDS = ("five", "wide")
RESULTS = HERE / "results" / "compare"
QUICK_RESULTS = ROOT / "runs" / "compare-quick"

SEEDS = [0, 1, 2]
LIMITS = {"max_unlabeled": 5000, "max_test": 1000}
ONLY = {"hfssl_thorough": [("trec6", 0), ("sst2", 0)]}  # it takes hours

QUICK_DATASETS, QUICK_SEEDS = ["trec6", "sst2"], [0]
QUICK_LIMITS = {"max_unlabeled": 500, "max_test": 200}
QUICK_METHODS = [name for name in METHODS if name not in ("setfit", "hfssl_standard", "hfssl_thorough")]


@dataclass(frozen=True)
class Cell:
    """One method on one split."""

    dataset: str
    labels_per_class: int
    method: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.labels_per_class}-{self.method}-{self.seed}"


# --- running ---------------------------------------------------------------------------------------------------------


def choose_cells(options: argparse.Namespace) -> list[Cell]:
    """The asked-for part of the grid; one data set is finished before the next is begun."""
    return [
        Cell(dataset, LABELS_PER_CLASS[dataset], method, seed)
        for dataset in options.datasets
        for seed in options.seeds
        for method in options.methods
        if method not in ONLY or (dataset, seed) in ONLY[method]
    ]


def run_cells(cells: Sequence[Cell], options: argparse.Namespace) -> list[str]:
    """Runs what is not kept yet, one process after the other; returns the names of the cells that failed."""
    missing = [cell for cell in cells if options.again or not _file(cell, options).exists()]
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, cell in enumerate(missing, start=1):
            splits = Path(scratch) / f"{cell.dataset}-{cell.seed}"
            job = _job(cell, splits, options)
            done = (splits.exists() or run_process({**job, "method": SPLITS})) and run_process(job)
            outcome = _told(_file(cell, options)) if done else "FAILED"
            print(f"[{number}/{len(missing)}] {cell.name}: {outcome}", flush=True)
            failed += [] if done else [cell.name]
    return failed


def _file(cell: Cell, options: argparse.Namespace) -> Path:
    return options.results / f"{cell.name}.json"


def _job(cell: Cell, splits: Path, options: argparse.Namespace) -> dict[str, Any]:
    folder = options.data.resolve() / cell.dataset
    command = f"python benchmarks/compare.py --datasets {cell.dataset} --methods {cell.method} --seeds {cell.seed}"
    return {
        **vars(cell),
        "data": {
            "train": str(folder / "train.parquet"),
            "test": str(folder / "test.parquet"),
            "labels_per_class": cell.labels_per_class,
            **(QUICK_LIMITS if options.quick else LIMITS),
        },
        "backbone": options.backbone,
        "splits": str(splits),
        "output": str(_file(cell, options).resolve()),
        "command": command + " --quick" * options.quick + " --untimed" * options.untimed,
        "timed": not options.untimed,
    }


def _told(path: Path) -> str:
    kept = json.loads(path.read_text(encoding="utf-8"))
    memory = kept["peak_memory_bytes"] / 2**30
    seconds = "untimed" if kept["seconds"] is None else f"{kept['seconds']:.0f} s"
    return f"accuracy {100 * kept['accuracy']:.1f}, {seconds}, {memory:.2f} GiB"


# --- the command -----------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", choices=GRIDS, default=GRIDS[0], help="the wide one has options of its own")
    parser.add_argument(
        "--datasets", nargs="+", choices=LABELS_PER_CLASS, help="folders below ../shared/data; default: the grid"
    )
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, help="default: all; hfssl_thorough only on trec6 and sst2, seed 0"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 2")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="trec6 and sst2, seed 0, pools of 500 and tests of 200 rows, no SetFit, of hfssl only the preset quick; "
        "kept in runs/compare-quick",
    )
    parser.add_argument("--show", action="store_true", help="run nothing; print the table and draw the plot")
    parser.add_argument("--again", action="store_true", help="run the asked-for cells again, although they are kept")
    parser.add_argument("--untimed", action="store_true", help="keep no seconds: other work runs on this machine")
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the data sets")
    parser.add_argument("--backbone", help="folder of the backbone; default: all-MiniLM-L6-v2")
    parser.add_argument("--results", type=Path, help="folder of the kept cells; the plot is written next to it")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.datasets = options.datasets or (QUICK_DATASETS if options.quick else list(GRID))
    options.methods = options.methods or (QUICK_METHODS if options.quick else METHODS)
    options.seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    options.results = options.results or (QUICK_RESULTS if options.quick else RESULTS)
    return options


def check(options: argparse.Namespace) -> None:
    """Fails before hours are spent."""
    for dataset in options.datasets:
        if not (options.data / dataset).is_dir():
            raise SystemExit(f"Expected the data set in {options.data / dataset}, which is not there.")
    if "setfit" in options.methods and find_spec("setfit") is None:
        raise SystemExit('Expected SetFit; run `pip install -c constraints.txt -e ".[benchmarks]"` first.')
    options.backbone = options.backbone or backbone()


def main(argv: Sequence[str] | None = None) -> int:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--grid", choices=GRIDS, default=GRIDS[0])
    grid, rest = first.parse_known_args(argv)
    if grid.grid == "wide":
        return wide.main(rest)
    options = parse(rest)
    if options.cell:
        run_job(json.loads(options.cell))
        return 0
    failed = []
    if not options.show:
        check(options)
        failed = run_cells(choose_cells(options), options)
    every = read_cells(options.results)
    asked = [cell for cell in every if cell["dataset"] in options.datasets and cell["seed"] in options.seeds]
    if asked:
        print(f"\n{report(asked)}\n\nplot of the grid: {draw(every, options.results.with_suffix('.png'))}")
    else:
        print(f"No cell is kept in {options.results} of what was asked for.")
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
