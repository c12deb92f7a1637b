"""Handles Ctrl-C and SIGTERM in training: the first saves and stops after the step, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging

from hfssl.runtime.signals import stopping_signals

__all__ = ["InterruptNote"]

logger = logging.get_logger(__name__)


class InterruptNote:
    """Records whether this process received Ctrl-C or SIGTERM.

    It only records: the ranks receive the signal at different times, and each would stop at another step.
    """

    def __init__(self) -> None:
        self.taken = False

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Records the signals within the block. Does nothing outside the main thread, where no handler can be set."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(signum: int, frame: Any) -> None:
            if self.taken:
                raise KeyboardInterrupt
            self.taken = True
            logger.warning("Interrupted: saving after this step (press Ctrl-C again to stop at once).")

        previous = {number: signal.signal(number, note) for number in stopping_signals()}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
