"""Runs a function in fresh processes, alone or as the ranks of a gloo group, some of which may die; not a test itself.

The processes are forked from a server that has imported the libraries once: two ranks start in two seconds instead of
the fifteen that `torchrun` takes. As `torchrun` does, this ends the other ranks as soon as one has failed.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["hfssl.pipeline.fit", "hfssl.methods.self_training.rounds", "torch.distributed", "torch.nn.parallel.distributed"]
)


def run_ranks(function: Callable, *args: Any, log_dir: Path, ranks: int = 1, timeout: float = 300) -> list[int]:
    """Calls `function(*args)` in `ranks` processes; returns their exit codes (-9 for a rank that was killed).

    Output goes to `log_dir/rank-N.log`.
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    processes = [
        CONTEXT.Process(target=_rank, args=(function, args, rank, ranks, port, str(log_dir / f"rank-{rank}.log")))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    running = list(processes)
    while running:
        ended = wait([process.sentinel for process in running], timeout=timeout)
        for process in processes:
            process.join(0)
        running = [process for process in running if process.exitcode is None]
        if not ended or any(process.exitcode for process in processes):
            for process in running:
                process.kill()
                process.join()
            break
    return [process.exitcode for process in processes]


def logs(log_dir: Path) -> str:
    """What the ranks of the last run said."""
    return "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in sorted(log_dir.glob("rank-*.log")))


def _rank(function: Callable, args: tuple, rank: int, ranks: int, port: int, log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    if ranks > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch

    torch.set_num_threads(1)
    gc.freeze()  # as in conftest.py
    code = 0
    try:
        function(*args)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a group of which one rank is gone would wait for it at exit


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
