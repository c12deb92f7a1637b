"""Ctrl-C during training: the first asks for a save and a stop after the current step, the second stops at once."""

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
    """Whether this process was asked to stop.

    A note and no more: the ranks get the signal at different moments, and each would stop at another step.
    """

    def __init__(self) -> None:
        self.taken = False

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Within the block Ctrl-C is noted, but for a thread that is not the main one: it may set no handlers."""
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
