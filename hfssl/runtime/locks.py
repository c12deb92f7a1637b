"""One process a folder: a lock that ends with the process that holds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hfssl.errors import ConfigurationError

__all__ = ["locked", "release", "take_lock"]


def take_lock(path: Path) -> FileLock:
    """Takes the lock of the file `path`, without waiting for it.

    Args:
        path (`Path`): File of the lock, in the folder that it is for.

    Raises:
        ConfigurationError: Another process has it.
    """
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigurationError(
            f"Another process is working in the folder '{path.parent}': wait until it has ended, or choose another "
            "folder."
        ) from None
    return lock


def release(lock: FileLock) -> None:
    """Removes the file, and then the lock, so that no other process has taken it by then."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of the file `path` while the block runs; see `take_lock`."""
    lock = take_lock(path)
    try:
        yield
    finally:
        release(lock)
