"""Pushes of checkpoints in a thread: training continues during the upload."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from transformers.utils import logging

from hfssl.errors import HfsslError
from hfssl.hub.upload import Files, Pushed

__all__ = ["CheckpointPusher"]

logger = logging.get_logger(__name__)


class CheckpointPusher:
    """Sends copies of files, one push after the other, in a separate thread.

    Args:
        folder (`str` or `Path`): Folder that holds the temporary copies until they are sent.
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)
        self._executor: ThreadPoolExecutor | None = None
        self._pushes: list[Future[Pushed]] = []

    @property
    def is_idle(self) -> bool:
        """Returns whether every submitted push has ended, with success or failure."""
        return all(push.done() for push in self._pushes)

    def submit(self, files: Files, send: Callable[[Files], Pushed], *, warn: bool = False) -> Future[Pushed]:
        """Copies the files and calls `send` with the copies later; the originals may change or vanish in the meantime.

        Args:
            files (`Files`): Path in the repository -> file or content.
            send (`Callable[[Files], Pushed]`): Function that pushes the files.
            warn (`bool`, defaults to `False`): Whether a failure is also logged as a warning, before the future is
                done. The future holds the error in both cases.

        Returns:
            Future of the push.
        """
        copies = Path(tempfile.mkdtemp(dir=self._folder, prefix=".push.", suffix=".tmp"))
        copied: dict[str, Path | bytes] = {}
        for number, (name, file) in enumerate(files.items()):
            copied[name] = file if isinstance(file, bytes) else Path(shutil.copy2(file, copies / str(number)))

        def work() -> Pushed:
            try:
                return send(copied)
            except Exception as error:
                if warn:
                    _warn_of_failure(error)
                raise
            finally:
                shutil.rmtree(copies, ignore_errors=True)

        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hfssl-push")
        push = self._executor.submit(work)
        self._pushes.append(push)
        return push

    def wait(self) -> None:
        """Waits until all pushes have ended, with success or failure."""
        if not self.is_idle:
            logger.info("Waiting for the push of a checkpoint to be finished.")
        wait(self._pushes)
        self._pushes = []


def _warn_of_failure(error: Exception) -> None:
    reason = str(error) if isinstance(error, HfsslError) else type(error).__name__
    logger.warning("A push in mid-training failed; training goes on. %s", reason)
