"""Handles Ctrl-C during training: the first saves and stops after the current step, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging

__all__ = ["InterruptNote"]

logger = logging.get_logger(__name__)


class InterruptNote:
    """Records whether this process received Ctrl-C.

    It only records: the ranks receive the signal at different times, and each would stop at another step.
    """

    def __init__(self) -> None:
        self.taken = False

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Records Ctrl-C within the block. Does nothing outside the main thread, where no handler can be set."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(signum: int, frame: Any) -> None:
            if self.taken:
                raise KeyboardInterrupt
            self.taken = True
            logger.warning("Interrupted: saving after this step (press Ctrl-C again to stop at once).")

        previous = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
