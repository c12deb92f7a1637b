"""Uploads files in one commit to the Hub, with retries after transient errors.

Nothing changes before the commit, and the commit is atomic: a failed push can be repeated without loss.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import httpx, validate_repo_id
from transformers.utils import logging

from hfssl.errors import ModelError
from hfssl.hub.download import check_token, in_words

__all__ = ["Files", "Pushed", "check_repo_id", "commit", "make_repository", "sizes_of"]

logger = logging.get_logger(__name__)

Files = Mapping[str, Path | bytes]  # path in the repository -> file, or its content
T = TypeVar("T")

TRANSIENT = (429, 500, 502, 503, 504)
TRIES, FIRST_WAIT, MAX_WAIT = 5, 1.0, 300.0  # waits of 1, 2, 4 and 8 seconds, or as long as the server requests
# Files in a repository's root that define its model. Files left from an earlier push (an adapter before a full model)
# would be loaded in place of the new ones.
ROOT_OF_A_MODEL = re.compile(r"(adapter_)?config\.json|hfssl_labels\.json|[^/]+\.safetensors(\.index\.json)?")


@dataclass(frozen=True)
class Pushed:
    """Describes a finished push, or a dry run.

    Args:
        files (`dict[str, int]`): Path in the repository -> size in bytes.
        url (`str`, *optional*): Address of the commit; `None` for a dry run.
        oid (`str`, *optional*): Hash of the commit; `None` for a dry run.
    """

    files: dict[str, int]
    url: str | None = None
    oid: str | None = None


def check_repo_id(repo_id: str) -> None:
    """Raises a `ModelError` if `repo_id` is not a valid name of a repository."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ModelError(f"Expected a repository as name or namespace/name, got '{repo_id}': {error}") from None


def sizes_of(files: Files) -> dict[str, int]:
    """Returns path in the repository -> size in bytes."""
    return {name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in files.items()}


def make_repository(
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> str:
    """Creates the repository unless it exists; returns its full name. See `commit` for the arguments and errors."""
    check_repo_id(repo_id)
    check_token(token)
    api = HfApi(token=token)
    return _insisting(lambda: api.create_repo(repo_id, private=private, exist_ok=True).repo_id, repo_id, wait)


def commit(
    files: Files,
    repo_id: str,
    *,
    message: str,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Pushed:
    """Adds `files` to a repository in one commit, and deletes files of another kind of model from an earlier push.

    After server errors, rate limits and dropped connections the commit is retried, with growing waits. Large files
    that arrived before a failure are not sent again.

    Args:
        files (`Files`): Path in the repository -> file, or its content.
        repo_id (`str`): `name` or `namespace/name`; created if it does not exist.
        message (`str`): Commit message.
        private (`bool`, *optional*): Whether a new repository is private. Default: the setting of the namespace.
        revision (`str`, *optional*): Branch, created if it does not exist. Default: `main`.
        token (`str`, *optional*): Access token. Default: the token that `hf auth login` saved, or `HF_TOKEN`.
        wait (`Callable[[float], None]`, defaults to `time.sleep`): Function that waits for a number of seconds; tests
            replace it.

    Raises:
        ModelError: if the token is not valid or may not write, if somebody else pushed in between, or if the server
            does not respond. The Hub is then unchanged.
    """
    name = make_repository(repo_id, private=private, token=token, wait=wait)
    api = HfApi(token=token)

    def look() -> tuple[str | None, list[str]]:
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        info = api.model_info(name, revision=revision)
        return info.sha, [sibling.rfilename for sibling in info.siblings or []]

    head, present = _insisting(look, name, wait)
    brings_a_model = any(ROOT_OF_A_MODEL.fullmatch(path) for path in files)
    stale = [p for p in present if brings_a_model and p not in files and ROOT_OF_A_MODEL.fullmatch(p)]

    def send() -> Pushed:
        # New operations for each try: an operation that failed half-way still records its files as sent.
        operations = [CommitOperationAdd(path, file) for path, file in files.items()]
        operations += [CommitOperationDelete(path) for path in stale]
        done = api.create_commit(
            name, operations, commit_message=message, revision=revision, parent_commit=head, num_threads=2
        )
        return Pushed(sizes_of(files), done.commit_url, done.oid)

    return _insisting(send, name, wait)


def _insisting(work: Callable[[], T], repo_id: str, wait: Callable[[float], None]) -> T:
    """Runs `work`, again after transient failures; raises a final failure as one sentence, without any token."""
    for number in range(1, TRIES + 1):
        pause = FIRST_WAIT * 2 ** (number - 1)
        try:
            return work()
        except (HfHubHTTPError, httpx.TransportError, RuntimeError) as error:
            cause = error.__cause__ if type(error) is RuntimeError else error  # how the client reports failed uploads
            if isinstance(cause, HfHubHTTPError):
                status = cause.response.status_code
                if status not in TRANSIENT or number == TRIES:
                    raise ModelError(in_words(cause, repo_id)) from None
                pause = _asked_wait(cause.response.headers.get("Retry-After"), pause)
                reason = f"The Hub answered {status}"
            elif isinstance(cause, httpx.TransportError):
                if number == TRIES:
                    raise ModelError(
                        f"Expected an answer from the Hub for '{repo_id}', but the connection failed {TRIES} times "
                        f"({type(cause).__name__}): nothing was changed there; repeat the command later."
                    ) from None
                reason = f"The connection failed ({type(cause).__name__})"
            else:
                raise
        logger.warning("%s; try %d of %d in %.0f s.", reason, number + 1, TRIES, pause)
        wait(pause)
    raise AssertionError("unreachable")


def _asked_wait(header: str | None, default: float) -> float:
    """Returns the seconds in `Retry-After`; for a date in it, returns `default`."""
    try:
        return min(MAX_WAIT, float(header)) if header else default
    except ValueError:
        return default
