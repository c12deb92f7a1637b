"""What the graph costs as the pool grows: seconds, memory above the embeddings, what the fast search misses.

    python benchmarks/graph.py                   # writes benchmarks/results/graph.json and prints the table
    python benchmarks/graph.py --rows 12500 25000 --no-save
    python benchmarks/graph.py --search faiss    # another search; needs `pip install faiss-cpu`

Every size runs in a process of its own. "Memory" is that process's largest resident size less its size when it held
the embeddings and nothing else was done yet. Growth is taken from the CPU seconds of all threads, which other work on
the machine disturbs less than the clock; both are printed. The embeddings are a random mixture (8 classes of 25 topics
each) with a spectrum like that of sentence embeddings: the variance of direction i falls as 1/i.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hfssl.functional.label_spreading import graph_trust, knn_graph, spread_labels
from hfssl.functional.nearest_neighbors import nearest_neighbors
from hfssl.runtime.files import write_json

RESULTS = Path(__file__).parent / "results" / "graph.json"
ROWS = [12_500, 25_000, 50_000, 100_000]
CLASSES, TOPICS, DIMENSIONS = 8, 200, 384
LABELED_PER_CLASS = 10
NEIGHBORS = 10
RECALL_ROWS = 500
REPEATS = 3
GOAL_BYTES = 1e9


def make_embeddings(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings `[rows, 384]` float32 and classes `[rows]`; made part by part, to leave nothing in memory."""
    generator = np.random.default_rng(seed)
    scale = 1.0 / np.sqrt(np.arange(1, DIMENSIONS + 1))
    rotation = np.linalg.qr(generator.standard_normal((DIMENSIONS, DIMENSIONS)))[0].astype(np.float32)
    centers = generator.standard_normal((TOPICS, DIMENSIONS)) * scale
    topics = generator.integers(0, TOPICS, rows)
    embeddings = np.empty((rows, DIMENSIONS), dtype=np.float32)
    for start in range(0, rows, 2000):
        part = slice(start, min(start + 2000, rows))
        noise = generator.standard_normal((len(topics[part]), DIMENSIONS)) * scale
        embeddings[part] = (centers[topics[part]] + noise).astype(np.float32) @ rotation
    return embeddings, topics % CLASSES


def draw_labels(classes: np.ndarray, seed: int) -> np.ndarray:
    """`[N]`: the class of 10 rows a class, -1 elsewhere."""
    generator = np.random.default_rng(seed)
    labels = np.full(len(classes), -1)
    for k in range(CLASSES):
        labels[generator.choice(np.flatnonzero(classes == k), LABELED_PER_CLASS, replace=False)] = k
    return labels


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """The result, and the seconds by the clock and of the CPU, all threads together, of the fastest of three runs.

    What a run takes more than the fastest is other work on the machine (as in Python's `timeit`).
    """
    fastest = {"clock": math.inf, "cpu": math.inf}
    for _ in range(REPEATS):
        result = None  # before the next one is made: the peak of memory is that of one run
        clock, cpu = time.perf_counter(), time.process_time()
        result = call()
        spent = {"clock": time.perf_counter() - clock, "cpu": time.process_time() - cpu}
        fastest = min(fastest, spent, key=lambda seconds: seconds["cpu"])
    return result, fastest


def recall(embeddings: np.ndarray, search: str, seed: int) -> float:
    """Share of the true 10 nearest neighbours that the search found, over 500 rows."""
    found, _ = nearest_neighbors(embeddings, NEIGHBORS, search=search, seed=seed)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    rows = np.random.default_rng(seed).choice(len(unit), RECALL_ROWS, replace=False)
    cosines = unit[rows] @ unit.T
    cosines[np.arange(len(rows)), rows] = -1.0
    true = np.argpartition(-cosines, NEIGHBORS, axis=1)[:, :NEIGHBORS]
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(true, found[rows], strict=True)]))


def measure(rows: int, search: str, seed: int) -> dict[str, Any]:
    """One size, in this process."""
    embeddings, classes = make_embeddings(rows, seed)
    labels = draw_labels(classes, seed)
    with open("/proc/self/statm", encoding="ascii") as file:
        before = int(file.read().split()[1]) * resource.getpagesize()
    graph, build = timed(lambda: knn_graph(embeddings, NEIGHBORS, search=search, seed=seed))
    result, spread = timed(lambda: spread_labels(graph, labels, CLASSES))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    trust, held_out = timed(lambda: graph_trust(graph, labels, CLASSES, seed=seed))
    unlabeled = labels < 0
    return {
        "rows": rows,
        "edges": int(graph.nnz),
        "build_seconds": build,
        "spread_seconds": spread,
        "trust_seconds": held_out,
        "bytes_above_embeddings": peak - before,
        "embedding_bytes": embeddings.nbytes,
        "recall": recall(embeddings, search, seed),
        "accuracy": float((result.probs.argmax(axis=1) == classes)[unlabeled].mean()),
        "reached": float(result.reached.mean()),
        "held_out_accuracy": trust.accuracy,
    }


def in_own_process(rows: int, search: str, seed: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", str(rows), "--search", search, "--seed", str(seed)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def with_growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds, from the second size on, how CPU seconds grew and how n log n did."""
    for before, row in zip(rows, rows[1:], strict=False):
        seconds = [r["build_seconds"]["cpu"] + r["spread_seconds"]["cpu"] for r in (before, row)]
        row["growth"] = seconds[1] / seconds[0]
        row["n_log_n_growth"] = row["rows"] * math.log(row["rows"]) / (before["rows"] * math.log(before["rows"]))
    return rows


def show(results: dict[str, Any]) -> None:
    """Prints the table."""
    print(f"\n{NEIGHBORS} neighbours, {DIMENSIONS} dimensions, {CLASSES} classes, {LABELED_PER_CLASS} labels a class; "
          f"search {results['search']!r}, {results['cores']} cores; seconds are clock (CPU)\n")  # fmt: skip
    print(f"{'rows':>8}{'build':>16}{'spread':>16}{'trust':>16}{'growth':>9}{'n log n':>9}{'memory':>10}{'recall':>8}"
          f"{'accuracy':>10}{'held out':>10}")  # fmt: skip
    for row in results["sizes"]:
        columns = "".join(
            f"{seconds['clock']:.1f} ({seconds['cpu']:.1f})".rjust(16)
            for seconds in (row["build_seconds"], row["spread_seconds"], row["trust_seconds"])
        )
        growth = f"{row['growth']:>9.2f}{row['n_log_n_growth']:>9.2f}" if "growth" in row else f"{'':>18}"
        print(f"{row['rows']:>8}{columns}{growth}{row['bytes_above_embeddings'] / 1e6:>7.0f} MB{row['recall']:>8.3f}"
              f"{row['accuracy']:>10.3f}{row['held_out_accuracy']:>10.3f}")  # fmt: skip
    print(f"\ngoal: growth at most that of n log n, memory below {GOAL_BYTES / 1e6:.0f} MB at 100,000 rows: "
          f"{'met' if results['goal_met'] else 'NOT met'}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="sizes to measure, ascending")
    parser.add_argument("--search", default="cells", help="search of hfssl.functional.label_spreading to measure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-save", action="store_true", help="do not write benchmarks/results/graph.json")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.search, options.seed)))
        return
    sizes = with_growth([in_own_process(rows, options.search, options.seed) for rows in options.rows])
    results = {
        "command": "python benchmarks/graph.py " + " ".join(sys.argv[1:]),
        "cores": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "scikit-learn")},
        "search": options.search,
        "seed": options.seed,
        "goal_met": all(row.get("growth", 0) <= row.get("n_log_n_growth", 0) for row in sizes)
        and sizes[-1]["bytes_above_embeddings"] < GOAL_BYTES,
        "sizes": sizes,
    }
    show(results)
    if not options.no_save:
        write_json(RESULTS, results)
        print(f"\nwritten to {RESULTS}")


if __name__ == "__main__":
    main()
