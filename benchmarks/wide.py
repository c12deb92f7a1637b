"""The wide grid: thirteen data sets at two budgets. Choices are made on development rows, reports on test rows.

    python benchmarks/compare.py --grid wide --rows development            # 26 cells a method, one seed
    python benchmarks/compare.py --grid wide --rows test --max-hours 3     # ends between cells; run it again to go on
    python benchmarks/compare.py --grid wide --rows test --show            # tables, comparisons, goals of what is kept
    python benchmarks/compare.py --grid wide --rows test --show --against setfit
    python benchmarks/compare.py --grid wide --variant 'short={"self_training": {"max_steps": 60}}'   # see variants.py
    python benchmarks/compare.py --grid wide --rows test --methods hfssl_standard setfit --seeds 7 8   # fresh draws
    python benchmarks/compare.py --grid wide --rows test --methods hfssl_standard --pool harmful --budgets low

`--rows development` cuts the rows to train on and to measure by off the training parts (`development.py`), on the fly
and in a folder that is removed; `--rows test` measures by the real test parts. Labels a class: 8 (low) and 32 (high);
4 and 16 where classes are many or rows few (`grid.wide_budgets`). Pools of at most 2,000 rows. clinc150 is without its
out-of-scope rows. Everything else is as in the grid of five.

One cell after the other runs in a process of its own and is kept, as soon as it is finished, in
`benchmarks/results/wide/ROWS/DATASET-LABELS-METHOD-SEED.json`. All data sets of one seed and budget come before the
next budget and seed, and all methods of a data set stand together, so that what is kept at any time can be compared. A
cell that today's code or settings would make anew is named in the tables, and `--stale` runs it again.

hfssl on development rows also leaves its logits in `runs/wide-logits/` (not in git), for `replay.py`; its teachers
then predict the test part, too, which its seconds contain. `--before CHECKOUT` adds the methods `before_quick` and
`before_standard`: hfssl as of a checkout of an earlier commit, for the comparison of seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cells import HFSSL, METHODS, SPLITS, run_process
from grid import BUDGETS, HERE, OUT_OF_SCOPE, ROOT, SHARED, WIDE, backbone, wide_budgets
from pools import HARMFUL, OWN, harmful_pool
from variants import current_settings, read_variant
from wide_tables import read_wide, version_changes, wide_report

from hfssl.runtime.files import write_json

__all__ = ["choose", "main", "parse", "run"]

ROWS = ("development", "test")
SEEDS = {"development": [0], "test": [0, 1]}
WIDE_METHODS = ["hfssl_standard", "hfssl_quick", "setfit", "logistic_regression", "trainer_full", "self_training"]
BEFORE = {name.replace("hfssl", "before"): name for name in ("hfssl_quick", "hfssl_standard")}
MAX_POOL = 2000
LIMITS = {"max_unlabeled": MAX_POOL, "max_test": 1000}
HOUR = 3600.0
MAX_LOGITS_BYTES = 50e6


@dataclass(frozen=True)
class WideCell:
    """One method on one split of the wide grid."""

    dataset: str
    budget: str
    labels_per_class: int
    method: str
    seed: int
    pool: str = OWN
    variant: str = ""
    overrides: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        """The method with its variant: `hfssl_standard+no_refit`."""
        return f"{self.method}+{self.variant}" if self.variant else self.method

    @property
    def split(self) -> str:
        """The same for all cells with the same rows."""
        return f"{self.dataset}-{self.labels_per_class}-{self.seed}" + f"-{self.pool}" * (self.pool != OWN)

    @property
    def name(self) -> str:
        pool = f"-{self.pool}" * (self.pool != OWN)
        return f"{self.dataset}-{self.labels_per_class}-{self.label}-{self.seed}{pool}"


def choose(options: argparse.Namespace) -> list[WideCell]:
    """The asked-for cells, by seed, then budget, then data set."""
    return [
        WideCell(
            dataset,
            budget,
            wide_budgets(options.data / dataset)[budget],
            method,
            seed,
            harmful_pool(WIDE, dataset, options.pool)["kind"] if options.pool != OWN else OWN,
            variant,
            overrides,
        )
        for seed in options.seeds
        for budget in options.budgets
        for dataset in options.datasets
        for method in options.methods
        for variant, overrides in [("", {}), *(options.variant if method in HFSSL else [])]
    ]


# --- running ---------------------------------------------------------------------------------------------------------


@dataclass
class Pace:
    """Seconds of finished cells, from which those of others are estimated."""

    kept: list[dict[str, Any]]

    def estimate(self, cell: WideCell) -> float | None:
        """Seconds of a cell: as of the most similar kept cells; `None` where no cell of the method is kept."""
        same_method = [one for one in self.kept if one["method"] == cell.method and one.get("wall_seconds")]
        same_place = [one for one in same_method if (one["dataset"], one["budget"]) == (cell.dataset, cell.budget)]
        same_variant = [one for one in same_place if one["variant"] == cell.variant]
        for similar in (same_variant, same_place, same_method):
            if similar:
                return statistics.mean(one["wall_seconds"] for one in similar)
        return None

    def left(self, cells: Sequence[WideCell]) -> str:
        """The time that the cells need, in words."""
        known = [seconds for cell in cells if (seconds := self.estimate(cell)) is not None]
        if not cells or not known:
            return "nothing left" if not cells else "time left unknown"
        unknown = f", {len(cells) - len(known)} cells not counted" if len(known) < len(cells) else ""
        return f"about {sum(known) / HOUR:.1f} h left{unknown}"


def run(cells: Sequence[WideCell], options: argparse.Namespace) -> list[str]:
    """Runs what is not kept, or asked for again; returns the names of the cells that failed."""
    started, failed = time.monotonic(), []
    missing = [cell for cell in cells if _is_missing(cell, options)]
    pace = Pace(read_wide(options.results))
    print(f"{len(missing)} of {len(cells)} cells to run, {pace.left(missing)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="hfssl-wide-") as scratch:
        for number, cell in enumerate(missing):
            left = HOUR * options.max_hours - (time.monotonic() - started)
            if left < max(pace.estimate(cell) or 0.0, 1e-9):
                print(f"{len(missing) - number} cells are left, {pace.left(missing[number:])}: run it again to go on.")
                break
            if _run_cell(cell, Path(scratch), options):
                kept = json.loads(_file(cell, options).read_text(encoding="utf-8"))
                pace.kept.append(kept)
                outcome = f"accuracy {100 * kept['accuracy']:.1f}, {kept['wall_seconds']:.0f} s"
            else:
                outcome, failed = "FAILED", [*failed, cell.name]
            rest = pace.left(missing[number + 1 :])
            print(f"[{number + 1}/{len(missing)}] {cell.name}: {outcome}; {rest}", flush=True)
    return failed


def _is_missing(cell: WideCell, options: argparse.Namespace) -> bool:
    path = _file(cell, options)
    if options.again or not path.exists():
        return True
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept["overrides"] != cell.overrides:
        raise SystemExit(
            f"Expected the settings {json.dumps(kept['overrides'])} of the variant {cell.variant!r}, as in {path}, "
            f"got {json.dumps(cell.overrides)}: give it another name, or run it --again."
        )
    return options.stale and bool(version_changes(kept))


def _file(cell: WideCell, options: argparse.Namespace) -> Path:
    return options.results / f"{cell.name}.json"


def _run_cell(cell: WideCell, scratch: Path, options: argparse.Namespace) -> bool:
    if cell.method in BEFORE:
        return _run_before(cell, scratch, options)
    job = _job(cell, scratch, options)
    splits = Path(job["splits"])
    made = cell.method in HFSSL or splits.exists() or run_process({**job, "method": SPLITS})
    return made and run_process({**job, "started": time.time()})


def _run_before(cell: WideCell, scratch: Path, options: argparse.Namespace) -> bool:
    """hfssl as of an earlier commit, run by that commit's own benchmark, which keeps what it did then."""
    output, started = scratch / f"{cell.name}.json", time.time()
    job = _job(cell, scratch, options)
    job |= {"method": BEFORE[cell.method], "output": str(output), "splits": f"{job['splits']}-before"}
    made = Path(job["splits"]).exists() or run_process({**job, "method": SPLITS}, options.before)
    if not (made and run_process(job, options.before)):
        return False
    kept = json.loads(output.read_text(encoding="utf-8"))
    write_json(
        _file(cell, options),
        {**kept, "method": cell.method, **job["labels"], "wall_seconds": time.time() - started, "code": {}},
    )
    return True


def _job(cell: WideCell, scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    folder = _rows(cell.dataset, scratch, options)
    logits = cell.method in HFSSL and cell.pool == OWN and options.keep_logits
    limits = {name: value for name, value in LIMITS.items() if (cell.pool, name) != ("one_class", "max_unlabeled")}
    return {
        "dataset": cell.dataset,
        "labels_per_class": cell.labels_per_class,
        "method": cell.method,
        "seed": cell.seed,
        "data": {
            "train": str(folder / "train.parquet"),
            "test": str(folder / "test.parquet"),
            "labels_per_class": cell.labels_per_class,
            **limits,
        },
        "backbone": options.backbone,
        "splits": str(scratch / "splits" / cell.split),
        "output": str(_file(cell, options).resolve()),
        "command": _command(cell, options),
        "timed": not options.untimed,
        "planted": _planted(cell, scratch, options),
        "overrides": cell.overrides,
        "logits": str((options.logits / f"{cell.name}.npz").resolve()) if logits else None,
        "labels": {
            "grid": "wide",
            "measured_on": options.rows,
            "budget": cell.budget,
            "pool": cell.pool,
            "variant": cell.variant,
            "overrides": cell.overrides,
        },
    }


def _planted(cell: WideCell, scratch: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    if cell.pool == OWN:
        return None
    planted = harmful_pool(WIDE, cell.dataset, cell.pool)
    texts = _rows(planted["source"], scratch, options) / "train.parquet" if planted["source"] else None
    return {**planted, "max_rows": MAX_POOL, "texts": texts and str(texts)}


def _rows(dataset: str, scratch: Path, options: argparse.Namespace) -> Path:
    """The folder of a data set's rows: as it lies there, or cut, in the scratch folder."""
    source, output = (options.data / dataset).resolve(), scratch / options.rows / dataset
    without = OUT_OF_SCOPE.get(dataset)
    if options.rows == "test" and without is None:
        return source
    if not output.exists():
        import development

        if options.rows == "test":
            development.copy(source, output, without=str(without))
        elif development.cut(source, output, without=without) is None:
            raise SystemExit(f"Expected {development.MIN_ROWS:,} or more labeled texts in {source}, got fewer.")
    return output


def _command(cell: WideCell, options: argparse.Namespace) -> str:
    words = [f"python benchmarks/compare.py --grid wide --rows {options.rows} --datasets {cell.dataset}"]
    words += [f"--budgets {cell.budget} --methods {cell.method} --seeds {cell.seed}"]
    words += [f"--pool {cell.pool}"] * (cell.pool != OWN)
    words += [f"--variant '{cell.variant}={json.dumps(cell.overrides)}'"] * bool(cell.variant)
    words += ["--untimed"] * options.untimed
    return " ".join(words)


# --- the command -----------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare.py --grid wide", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rows", choices=ROWS, default=ROWS[0], help="what is measured by; default: development")
    add(
        "--datasets", nargs="+", choices=WIDE, default=list(WIDE), help="folders below ../shared/data; default: all 13"
    )
    add("--budgets", nargs="+", choices=list(BUDGETS), default=list(BUDGETS), help="of labels; default: both")
    add("--methods", nargs="+", choices=[*METHODS, *BEFORE], help=f"default: {' '.join(WIDE_METHODS)}")
    add("--seeds", type=int, nargs="+", help="draws of the labels; default: 0 (development), 0 1 (test)")
    add("--pool", choices=(OWN, *HARMFUL, "harmful"), default=OWN, help="'harmful': the three kinds in turn")
    add(
        "--variant", action="append", default=[], help="NAME (variants.py) or NAME=JSON, beside the preset; repeatable"
    )
    add("--max-hours", type=float, default=float("inf"), help="begin no cell that would end later")
    add("--show", action="store_true", help="run nothing; print tables, comparisons and goals of what is kept")
    add("--against", help="compare every method and variant with this one")
    add("--again", action="store_true", help="run the asked-for cells again, although they are kept")
    add("--stale", action="store_true", help="run cells again that today's code or settings would make anew")
    add("--untimed", action="store_true", help="keep no seconds: other work runs on this machine")
    add("--before", type=Path, metavar="CHECKOUT", help="folder of an earlier commit, for before_quick and _standard")
    add("--data", type=Path, default=SHARED, help="folder of the data sets")
    add("--backbone", help="folder of the backbone; default: all-MiniLM-L6-v2")
    add("--results", type=Path, help="folder of the kept cells; default: benchmarks/results/wide/ROWS")
    add("--logits", type=Path, help="folder of the kept logits; default: runs/wide-logits/ROWS")
    add("--keep-logits", action=argparse.BooleanOptionalAction, help="default: on development rows alone")
    options = parser.parse_args(argv)
    options.shown_seeds = options.seeds if options.show else None
    options.seeds = options.seeds or SEEDS[options.rows]
    options.methods = options.methods or WIDE_METHODS
    options.variant = [read_variant(given) for given in options.variant]
    options.results = options.results or HERE / "results" / "wide" / options.rows
    options.logits = options.logits or ROOT / "runs" / "wide-logits" / options.rows
    if options.keep_logits is None:
        options.keep_logits = options.rows == "development"
    return options


def check(options: argparse.Namespace) -> None:
    """Fails before hours are spent."""
    for dataset in options.datasets:
        if not (options.data / dataset).is_dir():
            raise SystemExit(f"Expected the data set in {options.data / dataset}, which is not there.")
    if "setfit" in options.methods and find_spec("setfit") is None:
        raise SystemExit('Expected SetFit; run `pip install -c constraints.txt -e ".[benchmarks]"` first.')
    if set(options.methods) & set(BEFORE) and options.before is None:
        raise SystemExit("Expected --before with the folder of an earlier commit: `git worktree add FOLDER COMMIT`.")
    options.backbone = options.backbone or backbone()
    options.before = options.before and options.before.resolve()
    for method in set(options.methods) & set(HFSSL):
        for _, overrides in options.variant:
            try:
                current_settings(HFSSL[method], overrides)
            except (LookupError, TypeError) as error:
                raise SystemExit(error.args[0]) from None


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    failed = []
    if not options.show:
        check(options)
        failed = run(choose(options), options)
    kept = [
        cell
        for cell in read_wide(options.results)
        if cell["dataset"] in options.datasets
        and cell["budget"] in options.budgets
        and (options.shown_seeds is None or cell["seed"] in options.shown_seeds)
    ]
    print(f"\n{wide_report(kept, options.against)}" if kept else f"No cell is kept in {options.results}.")
    _tell_size(options.logits)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _tell_size(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.glob("*.npz"))
    if size:
        print(f"\nKept logits: {size / 1e6:.1f} MB in {folder} (goal: at most {MAX_LOGITS_BYTES / 1e6:.0f})")
