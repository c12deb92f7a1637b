"""SIGTERM, by which schedulers and containers end a process, is treated like Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["STOPPING", "stopping_signals", "terminated_like_ctrl_c"]

STOPPING = (signal.SIGINT, signal.SIGTERM)


def stopping_signals() -> tuple[signal.Signals, ...]:
    """Returns the signals that save and stop a run.

    In a run of several ranks only Ctrl-C does: by SIGTERM the launcher ends the ranks that are left when one has
    failed, and they could not save without it.
    """
    return STOPPING if int(os.environ.get("WORLD_SIZE", "1")) == 1 else STOPPING[:1]


@contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """Raises `KeyboardInterrupt` on SIGTERM within the block. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread() or signal.SIGTERM not in stopping_signals():
        yield
        return

    def stop(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
