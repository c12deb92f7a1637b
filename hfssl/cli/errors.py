"""User errors, full disks and Ctrl-C as one line on stderr, with their exit statuses."""

from __future__ import annotations

import errno
import logging
import os
import sys

__all__ = ["BELOW_LIMIT", "INTERRUPTED", "USER_ERROR", "WARNINGS", "complain", "storage_problem"]

USER_ERROR, BELOW_LIMIT, INTERRUPTED = 2, 3, 130
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors and torch write in Rust and C++, and their own errors have no errno.
DISK_FULL_WORDS = ("No space left on device", "Disk quota exceeded", "File too large", "failed writing file")
NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
NOT_A_FOLDER = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


def storage_problem(error: Exception, resume_hint: str) -> str | None:
    """Returns one sentence for an error that the disk or its permissions cause; `None` for all others.

    Args:
        error (`Exception`): The error, with its chain of causes.
        resume_hint (`str`): One sentence on how to continue.
    """
    where = f"'{error.filename}'" if isinstance(error, OSError) and error.filename else "the output folder"
    link: BaseException | None = error
    while link is not None:  # libraries wrap the errors of the system
        full = link.errno in DISK_FULL if isinstance(link, OSError) and link.errno else False
        if full or any(words in str(link) for words in DISK_FULL_WORDS):
            return f"There is no room on the disk for {where}: free some space. {resume_hint}"
        link = link.__cause__ or link.__context__
    if isinstance(error, OSError) and error.errno in NOT_ALLOWED:
        return f"The system does not allow access to {where}: choose another folder or change its permissions."
    if isinstance(error, OSError) and error.errno in NOT_A_FOLDER:
        return (
            f"{where} cannot be written: a file stands where a folder is expected, or the other way round; choose "
            "another name."
        )
    return None


class CommandWarnings(logging.Handler):
    """Prints hfssl's own warnings like the other messages of the command, without tearing a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        if os.environ.get("RANK", "0") == "0":
            tqdm.write(f"hfssl: {record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


WARNINGS = CommandWarnings(logging.WARNING)


def complain(message: str, kind: str) -> None:
    """Prints `hfssl: KIND: MESSAGE` on stderr, on the first rank only.

    Args:
        message (`str`): One sentence.
        kind (`str`): `"error"`, `"warning"` or `"stopped"`.
    """
    if os.environ.get("RANK", "0") == "0":  # every rank of a distributed run has the same error
        print(f"hfssl: {kind}: {message.strip()}", file=sys.stderr)
