"""hfssl and its peers: the same labeled, unlabeled and test rows, the same backbone, one process at a time.

    python benchmarks/compare.py                                   # the grid; hours on two cores
    python benchmarks/compare.py --datasets trec6 --methods setfit hfssl_standard --seeds 0
    python benchmarks/compare.py --datasets wrench_youtube         # also imdb_5k, clinc150: not in the grid
    python benchmarks/compare.py --quick                           # two small cells, for CI
    python benchmarks/compare.py --show                            # the table and the plot of what is kept
    python benchmarks/compare.py --show --seeds 0                  # ... the table of one seed

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
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from grid import GRID, HERE, MORE_SETS, ROOT, SHARED, backbone
from peers import HFSSL, LABELS_ONLY, METHODS, PEERS, SPLITS, run_job

from hfssl.config.stages import STAGES

RESULTS = HERE / "results" / "compare"
QUICK_RESULTS = ROOT / "runs" / "compare-quick"

LABELS_PER_CLASS = GRID | MORE_SETS
SEEDS = [0, 1, 2]
LIMITS = {"max_unlabeled": 5000, "max_test": 1000}
ONLY = {"hfssl_thorough": [("trec6", 0), ("sst2", 0)]}  # it takes hours

QUICK_DATASETS, QUICK_SEEDS = ["trec6", "sst2"], [0]
QUICK_LIMITS = {"max_unlabeled": 500, "max_test": 200}
QUICK_METHODS = [name for name in METHODS if name not in ("setfit", "hfssl_standard", "hfssl_thorough")]

# What hfssl's verdict selects from; a refit comes after it.
CHOICES = [name for name, stage in STAGES.items() if stage.product == "classifier"]

Place = tuple[str, int]  # data set and seed
Numbers = dict[Place, dict[str, Any]]  # what one method has reached where


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
            done = (splits.exists() or _run_process({**job, "method": SPLITS})) and _run_process(job)
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


def _run_process(job: dict[str, Any]) -> bool:
    """Runs a `--cell` process to its end; what it says is shown only if it fails."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        words = [sys.executable, str(HERE / "compare.py"), "--cell", json.dumps(job)]
        status = subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, env=environment).returncode
        if status:
            log.seek(0)
            print("".join(log.readlines()[-30:]), file=sys.stderr)
    return status == 0


def _told(path: Path) -> str:
    kept = json.loads(path.read_text(encoding="utf-8"))
    memory = kept["peak_memory_bytes"] / 2**30
    seconds = "untimed" if kept["seconds"] is None else f"{kept['seconds']:.0f} s"
    return f"accuracy {100 * kept['accuracy']:.1f}, {seconds}, {memory:.2f} GiB"


# --- showing ---------------------------------------------------------------------------------------------------------


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """All kept cells, by method, then in the order of the grid and of the other sets."""
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    order = [*LABELS_PER_CLASS]
    return sorted(kept, key=lambda cell: (METHODS.index(cell["method"]), order.index(cell["dataset"]), cell["seed"]))


def by_method(kept: Iterable[Mapping[str, Any]]) -> dict[str, Numbers]:
    """Method -> place -> numbers; hfssl's stages follow their preset under names of their own."""
    numbers: dict[str, Numbers] = {}
    for cell in kept:
        place = (cell["dataset"], cell["seed"])
        numbers.setdefault(cell["method"], {})[place] = dict(cell)
        for stage, metrics in cell.get("stages", {}).items():
            numbers.setdefault(f"{cell['method']}: {stage}", {})[place] = metrics
    return numbers


def report(kept: Sequence[Mapping[str, Any]]) -> str:
    """The table, what must be known to read it, and the goals."""
    numbers = by_method(kept)
    parts = [_table(numbers), "\n".join(_notes(kept)), "\n".join(["Goals", *goals(numbers)])]
    return "\n\n".join(part for part in parts if part)


def _table(numbers: Mapping[str, Numbers]) -> str:
    places = {place for cells in numbers.values() for place in cells}
    datasets = [name for name in LABELS_PER_CLASS if any(dataset == name for dataset, _ in places)]
    head = ["accuracy", *(f"{name}@{LABELS_PER_CLASS[name]}" for name in datasets)]
    head += ["mean", "macro-F1", "ECE", "seconds", "GiB", "cells", "timed"]
    lines = [head]
    for method, cells in numbers.items():
        whole = {dataset for dataset, _ in cells} == set(datasets)
        memory = max(cell.get("peak_memory_bytes", 0) for cell in cells.values()) / 2**30
        lines.append([method, *(_spread(_of(cells, dataset)) for dataset in datasets)])
        lines[-1] += [f"{100 * _mean(cells, name):.1f}" if whole else "-" for name in ("accuracy", "macro_f1", "ece")]
        seconds = [cell["seconds"] for cell in cells.values() if cell["seconds"] is not None]
        lines[-1] += [f"{sum(seconds):,.0f}" if seconds else "-", f"{memory:.2f}" if memory else ""]
        lines[-1] += [f"{len(cells)}/{len(places)}", f"{len(seconds)}"]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join(
        ["In points, mean ± standard deviation over the seeds. Seconds: sum of the timed cells. GiB: peak.", "", *rows]
    )


def _of(cells: Numbers, dataset: str, name: str = "accuracy") -> list[float]:
    return [cell[name] for (where, _), cell in cells.items() if where == dataset]


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{100 * values[0]:.1f}" if values else "-"
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def _mean(cells: Numbers, name: str) -> float:
    """Mean over the data sets of the mean over the seeds."""
    return statistics.mean(statistics.mean(_of(cells, dataset, name)) for dataset in {where for where, _ in cells})


def _notes(kept: Iterable[Mapping[str, Any]]) -> list[str]:
    """Peers that were stopped early, and places where not all methods saw the same rows."""
    stopped, rows = {}, {}
    for cell in kept:
        if capped := cell["notes"].get("capped"):
            stopped[f"{cell['method']} on {cell['dataset']}: stopped after {capped}, to stay below 15 minutes"] = None
        rows.setdefault((cell["dataset"], cell["seed"]), {}).setdefault(cell["rows"]["digest"], []).append(cell)
    return [*stopped] + [
        f"NOT COMPARABLE, {dataset} seed {seed}: "
        + " saw other rows than ".join(", ".join(cell["method"] for cell in cells) for cells in seen.values())
        + "; run them with --again"
        for (dataset, seed), seen in rows.items()
        if len(seen) > 1
    ]


def goals(numbers: Mapping[str, Numbers]) -> list[str]:
    """What the project set itself, checked on the cells that both sides of a comparison have."""
    standard, setfit = (numbers.get(name, {}) for name in ("hfssl_standard", "setfit"))
    peer, trainer = (_best(numbers, names, standard) for names in (PEERS, LABELS_ONLY))
    lines = []
    for title, rival, goal in (("best peer", peer, 3.0), ("best labels-only Trainer", trainer, 4.0)):
        gains = _gains(standard, numbers.get(rival, {}))
        gain = _average(gains)
        text = f"standard minus {title}, {rival}: {gain:+.1f} points"
        lines.append(_goal(text, f"{goal}", gain >= goal, len(gains)))
    for title, rival in (("that Trainer", trainer), ("its own labels only", "hfssl_standard: labels_only")):
        gains = _over_seeds(_gains(standard, numbers.get(rival, {})))
        title = f"data sets where standard is over 1 point below {title}"
        lines.append(_none_below(title, gains, 1, "data sets"))
    gains = _gains(numbers.get("hfssl_quick", {}), numbers.get(trainer, {}))
    gain = _average(gains)
    lines.append(_goal(f"quick minus that Trainer: {gain:+.1f} points", "above 0", gain > 0, len(gains)))
    for preset in ("standard", "quick"):
        lines += _verdict_goals(numbers, f"hfssl_{preset}")
    for preset, goal in (("standard", 2), ("quick", 0.5)):
        ours = numbers.get(f"hfssl_{preset}", {})
        common = [place for place in ours if all(cells.get(place, {}).get("seconds") for cells in (ours, setfit))]
        seconds = [sum(cells[place]["seconds"] for place in common) for cells in (ours, setfit)]
        ratio = seconds[0] / seconds[1] if common else 0.0
        lines.append(_goal(f"{preset} / SetFit seconds: {ratio:.2f}", f"at most {goal}", ratio <= goal, len(common)))
    return lines


def _verdict_goals(numbers: Mapping[str, Numbers], method: str) -> list[str]:
    """What the verdict's selection of a stage cost against selecting by the test part."""
    regrets, gains = {}, {}
    for place, cell in numbers.get(method, {}).items():
        choices = {name: 100 * stage["accuracy"] for name, stage in cell.get("stages", {}).items() if name in CHOICES}
        if len(choices) > 1:
            regrets[place] = max(choices.values()) - choices[cell["selected_stage"]]
            gains["/".join(map(str, place))] = choices[cell["selected_stage"]] - choices["labels_only"]
    name, regret = method.removeprefix("hfssl_"), _average(regrets)
    return [
        _goal(f"{name}, mean regret of the verdict: {regret:.1f} points", "at most 0.5", regret <= 0.5, len(regrets)),
        _none_below(f"{name}, kept models over 2 points below labels only", gains, 2),
    ]


def _average(points: Mapping[Place, float]) -> float:
    return statistics.mean(points.values()) if points else 0.0


def _over_seeds(points: Mapping[Place, float]) -> dict[str, float]:
    """Data set -> mean over its seeds."""
    return {
        name: statistics.mean(value for (dataset, _), value in points.items() if dataset == name)
        for name in dict.fromkeys(dataset for dataset, _ in points)
    }


def _none_below(title: str, gains: Mapping[str, float], points: float, unit: str = "cells") -> str:
    """Names those with a loss of more than so many points."""
    below = [f"{name} {gain:+.1f}" for name, gain in gains.items() if gain < -points]
    return _goal(f"{title}: {', '.join(below) or 'none'}", "none", not below, len(gains), unit)


def _best(numbers: Mapping[str, Numbers], names: Iterable[str], ours: Numbers) -> str:
    """Of the methods that have over half of our cells, the one that ours is least ahead of there; none is ''."""
    gains = {name: _gains(ours, numbers.get(name, {})) for name in names}
    rivals = [name for name in gains if 2 * len(gains[name]) > len(ours)]
    return min(rivals, key=lambda name: statistics.mean(gains[name].values()), default="")


def _gains(ours: Numbers, theirs: Numbers) -> dict[Place, float]:
    """Accuracy of ours minus theirs in points, where both are."""
    return {
        place: 100 * (cell["accuracy"] - theirs[place]["accuracy"]) for place, cell in ours.items() if place in theirs
    }


def _goal(text: str, goal: str, reached: bool, count: int, unit: str = "cells") -> str:
    state = ("reached" if reached else "MISSED") if count else "not measured"
    shown = text if count else text.partition(":")[0].rstrip(", ")
    return f"  {state:12}  {shown} (goal {goal}; {count} {unit})"


def draw(kept: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """One row of dots a data set, one dot a seed, a line at the mean; of the grid alone where it has any."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    numbers = {name: cells for name, cells in by_method(kept).items() if name in METHODS}
    kept_of = [name for name in LABELS_PER_CLASS if any(_of(cells, name) for cells in numbers.values())]
    datasets = [name for name in kept_of if name in GRID] or kept_of
    figure, axes = pyplot.subplots(
        len(datasets), sharex=True, squeeze=False, figsize=(1.5 + len(numbers), 1 + 1.9 * len(datasets))
    )
    for axis, dataset in zip(axes[:, 0], datasets, strict=True):
        for position, (name, cells) in enumerate(numbers.items()):
            values = [100 * value for value in _of(cells, dataset)]
            color = "tab:orange" if name in HFSSL else "tab:blue"
            axis.plot([position] * len(values), values, "o", color=color, alpha=0.6)
            if values:
                axis.hlines(statistics.mean(values), position - 0.3, position + 0.3, color=color)
        axis.set_title(f"{dataset}, {LABELS_PER_CLASS[dataset]} labels a class", loc="left", fontsize="medium")
        axis.set_ylabel("accuracy, %")
        axis.grid(axis="y", alpha=0.3)
    axes[-1, 0].set_xticks(range(len(numbers)), numbers, rotation=30, ha="right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


# --- the command -----------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    options = parse(argv)
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
