"""One commit to the Hub: insisted on while the trouble passes, said in words where it does not.

Nothing is changed before the commit, and the commit is there as a whole or not at all: a push that failed has lost
nothing and can be repeated.
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
from hfssl.hub.download import in_words

__all__ = ["Files", "Pushed", "check_repo_id", "commit", "make_repository", "sizes_of"]

logger = logging.get_logger(__name__)

Files = Mapping[str, Path | bytes]  # path in the repository -> file, or its content
T = TypeVar("T")

TRANSIENT = (429, 500, 502, 503, 504)
TRIES, FIRST_WAIT, MAX_WAIT = 5, 1.0, 300.0  # waits of 1, 2, 4 and 8 seconds, or what the server asks for
# What says which model a repository's root holds. Left over from an earlier push (an adapter where now a full model
# is), it would be loaded in place of the new one.
ROOT_OF_A_MODEL = re.compile(r"(adapter_)?config\.json|hfssl_labels\.json|[^/]+\.safetensors(\.index\.json)?")


@dataclass(frozen=True)
class Pushed:
    """What a push has done, or would do.

    Args:
        files (`dict[str, int]`): Path in the repository -> bytes.
        url (`str`, *optional*): Of the commit; `None` for a dry run.
        oid (`str`, *optional*): Of the commit; `None` for a dry run.
    """

    files: dict[str, int]
    url: str | None = None
    oid: str | None = None


def check_repo_id(repo_id: str) -> None:
    """Raises a `ModelError` for what cannot be the name of a repository."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ModelError(f"Expected a repository as name or namespace/name, got '{repo_id}': {error}") from None


def sizes_of(files: Files) -> dict[str, int]:
    """Path in the repository -> bytes."""
    return {name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in files.items()}


def make_repository(
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> str:
    """Makes the repository if it is not there; returns its full name. See `commit` for the arguments and errors."""
    check_repo_id(repo_id)
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
    """Adds `files` to a repository in one commit, and takes out what an earlier push left of another kind of model.

    Server errors, rate limits and dropped connections are tried again, with growing waits. Large files that arrived
    before a failure are not sent a second time.

    Args:
        files (`Files`): path in the repository -> file, or its content.
        repo_id (`str`): `name` or `namespace/name`; made if it is not there.
        message (`str`): of the commit.
        private (`bool`, *optional*): of a repository that is made. Default: as the namespace has it.
        revision (`str`, *optional*): branch, made if it is not there. Default: `main`.
        token (`str`, *optional*): default: the one that `hf auth login` saved, or `HF_TOKEN`.
        wait (`Callable[[float], None]`, defaults to `time.sleep`): for tests.

    Raises:
        ModelError: in one sentence: a token that is not valid or may not write, somebody else's push in between, a
            server that stays away. The Hub is then as it was.
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
        # New operations for each try: one that failed half-way keeps what it believes to have been sent.
        operations = [CommitOperationAdd(path, file) for path, file in files.items()]
        operations += [CommitOperationDelete(path) for path in stale]
        done = api.create_commit(
            name, operations, commit_message=message, revision=revision, parent_commit=head, num_threads=2
        )
        return Pushed(sizes_of(files), done.commit_url, done.oid)

    return _insisting(send, name, wait)


def _insisting(work: Callable[[], T], repo_id: str, wait: Callable[[float], None]) -> T:
    """Runs `work`, again after transient failures; what is final becomes one sentence, without any token in it."""
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
    """Seconds that `Retry-After` asks for; it may also hold a date, for which our own wait has to do."""
    try:
        return min(MAX_WAIT, float(header)) if header else default
    except ValueError:
        return default
