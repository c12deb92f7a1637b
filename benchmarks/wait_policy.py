"""What a training step costs with and without hfssl's wait policy, on the idle machine and beside other processes.

    python benchmarks/wait_policy.py             # writes benchmarks/results/wait_policy.json and prints the table
    python benchmarks/wait_policy.py --no-save --pairs 2 --steps 3 --busy 2

Needs a quiet machine: it says so and stops where other work is running, unless `--anyway` is given. Every measurement
is a process of its own, because OpenMP reads its variables once. The policies follow one another within each pair, in
turn first, second, third, so that what the machine does meanwhile falls on all of them. The ratios are those of the
pairs; the table has their median. "Loaded" is beside `--busy` processes that compute without end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "wait_policy.json"
POLICIES = {"default": {}, "passive": {"OMP_WAIT_POLICY": "passive"}, "spin 1,000": {"GOMP_SPINCOUNT": "1000"}}
OURS = "spin 1,000"
MAX_IDLE_COST = 0.03
MAX_LOAD = 0.5  # of other work, over the last minute
# A step of MiniLM-L6 with 16 rows of 64 tokens; random weights cost the same.
SHAPE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
ROWS, TOKENS = 16, 64


def step_seconds(steps: int, threads: int) -> list[float]:
    """Returns the duration of each training step after two for warming up, in this process."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(vocab_size=1000, **SHAPE)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    batch = {"input_ids": torch.randint(0, 1000, (ROWS, TOKENS)), "labels": torch.zeros(ROWS, dtype=torch.long)}
    found = []
    for _ in range(steps + 2):
        started = time.perf_counter()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(time.perf_counter() - started)
    return found[2:]


@contextmanager
def busy(count: int):
    """Runs `count` processes that compute without end while the block runs."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10**6))"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measured(policy: str, steps: int, threads: int) -> float:
    """Returns the median step of one process under a policy, in seconds."""
    names = {name for variables in POLICIES.values() for name in variables} | {"OMP_NUM_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name not in names} | POLICIES[policy]
    command = [sys.executable, __file__, "--one", "--steps", str(steps), "--threads", str(threads)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return statistics.median(json.loads(done.stdout))


def pairs(count: int, steps: int, threads: int) -> list[dict[str, float]]:
    """Returns policy -> median step, in seconds, for each of `count` pairs; each pair starts with another policy."""
    names, found = list(POLICIES), []
    for number in range(count):
        order = names[number % len(names) :] + names[: number % len(names)]
        found.append({name: measured(name, steps, threads) for name in order})
    return found


def ratios(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns policy -> median over the pairs of its step time divided by the default's.

    Args:
        found (`Sequence[Mapping[str, float]]`): Policy -> seconds of a step, for each pair.
    """
    return {name: statistics.median(pair[name] / pair["default"] for pair in found) for name in POLICIES}


def table(results: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Returns a Markdown table: seconds of a step and ratio to the default, for each case and policy."""
    lines = ["| case | policy | seconds a step | ratio to the default, median of the pairs |", "|---|---|---|---|"]
    for case, found in results.items():
        for name, ratio in ratios(found).items():
            seconds = statistics.median(pair[name] for pair in found)
            lines.append(f"| {case} | {name} | {seconds:.3f} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9, help="Number of processes of each policy and case.")
    parser.add_argument("--steps", type=int, default=10, help="Number of steps of each process.")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="Threads of the measured process.")
    parser.add_argument("--busy", type=int, default=5, help="Number of other processes in the loaded case.")
    parser.add_argument("--anyway", action="store_true", help="Measure although other work is running.")
    parser.add_argument("--no-save", action="store_true", help="Only print the table.")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(step_seconds(options.steps, options.threads)))
        return
    load = os.getloadavg()[0]
    if load > MAX_LOAD and not options.anyway:
        sys.exit(f"The load of the last minute is {load:.1f}: wait until nothing else runs, or give --anyway.")
    results = {"idle": pairs(options.pairs, options.steps, options.threads)}
    with busy(options.busy):
        results["loaded"] = pairs(options.pairs, options.steps, options.threads)
    print(table(results))
    cost, gain = ratios(results["idle"])[OURS] - 1, 1 / ratios(results["loaded"])[OURS]
    verdict = "met" if cost <= MAX_IDLE_COST else "not met"
    print(f"\nIdle cost of '{OURS}': {100 * cost:+.1f} % (goal: at most 3 %, {verdict}).")
    print(f"Loaded: {gain:.1f} times as fast as the default.")
    if not options.no_save:
        from hfssl.runtime.files import write_json

        write_json(RESULTS, {"load_before": load, "options": vars(options), "seconds": results})


if __name__ == "__main__":
    main()
