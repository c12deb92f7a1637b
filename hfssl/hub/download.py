"""Downloads a repository's files into the local cache, and translates the Hub's errors into sentences."""

from __future__ import annotations

import os
import re
from pathlib import Path

import huggingface_hub.constants
from huggingface_hub import get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx
from transformers.utils import logging

from hfssl.errors import ModelError

__all__ = ["check_token", "download", "in_words"]

logger = logging.get_logger(__name__)

WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.md"]  # so that no pickle is ever downloaded


def download(repo_id: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """Downloads a repository's configuration, safetensors and tokenizer; returns their folder in the local cache.

    Cached files are used where the Hub cannot be reached, or answers with nonsense.

    Raises:
        ModelError: if there is no such repository or revision, if it is neither reachable nor cached, or if the token
            cannot be sent.
    """
    check_token(token)
    try:
        return Path(snapshot_download(repo_id, revision=revision, token=token, allow_patterns=WANTED))
    except GatedRepoError as error:
        raise ModelError(
            f"Expected a token whose owner may read '{repo_id}', but its authors let in only whom they have accepted: "
            f"ask for access at huggingface.co/{repo_id}, and log in with `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"Expected a folder or a model on the Hub, but found neither under '{repo_id}': check the name, and for a "
            "private model log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"Expected a branch, tag or commit of '{repo_id}', found no '{revision}' there.") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HFValidationError) as error:
        if isinstance(cause := error.__cause__, HfHubHTTPError):  # the client looks into its cache before it tells
            raise ModelError(in_words(cause, repo_id, "read")) from None
        raise ModelError(_not_reached(repo_id)) from error
    except HfHubHTTPError as error:
        return _cached(repo_id, revision, in_words(error, repo_id, "read"))
    except httpx.TransportError as error:
        return _cached(repo_id, revision, f"{_lost(repo_id)} ({type(error).__name__}): repeat the command later.")
    except (OSError, ValueError) as error:  # a length that does not fit; an answer that is no JSON
        reason = (
            f"Expected the files of '{repo_id}' from the Hub, but got an answer that is not the Hub's or not whole "
            f"({type(error).__name__}): check whether a login page or a proxy stands between, and repeat the command."
        )
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the Hub's
        return _cached(repo_id, revision, reason)


def _lost(repo_id: str) -> str:
    return f"Expected the files of '{repo_id}' from the Hub, but the connection was lost"


def _not_reached(repo_id: str) -> str:
    start = (
        f"Expected '{repo_id}' to be a folder or in the local cache, but it is neither, and the Hub cannot be reached"
    )
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return f"{start}, because HF_HUB_OFFLINE is set: unset it, or download the model where there is a network."
    return f"{start} (offline?): download it where there is a network."


def _cached(repo_id: str, revision: str | None, reason: str) -> Path:
    """Returns the folder in the local cache, if it holds a whole model, and tells why it is used.

    Raises:
        ModelError: it does not; the message is the reason.
    """
    try:
        found = Path(snapshot_download(repo_id, revision=revision, allow_patterns=WANTED, local_files_only=True))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError, ValueError):
        raise ModelError(reason) from None
    whole = any(found.glob("*.safetensors")) and any(found.glob("*config.json"))
    if not whole:  # the download stopped in the middle
        raise ModelError(reason)
    logger.warning("%s The files in the local cache are used.", reason)
    return found


def check_token(token: str | None = None) -> None:
    """Raises a `ModelError` for a token that no request can carry; the message does not show it.

    Args:
        token (`str`, *optional*): Access token. Default: the one that `hf auth login` saved, or `HF_TOKEN`.
    """
    token = get_token() if token is None else token
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        source = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "the token that was given or saved"
        raise ModelError(
            f"Expected a token of letters, digits and underscores, but {source} holds other characters, as copying "
            "adds them: copy it again from huggingface.co/settings/tokens."
        )


def in_words(error: HfHubHTTPError, repo_id: str, doing: str = "write") -> str:
    """Returns one sentence about an error of the Hub, without tokens and addresses.

    Args:
        error (`HfHubHTTPError`): The error.
        repo_id (`str`): Name of the repository.
        doing (`str`, defaults to `"write"`): What was to be done there: `"write"` or `"read"`.
    """
    status = error.response.status_code
    unchanged = ": nothing was changed there; repeat the command later." if doing == "write" else ": repeat it later."
    if status == 401:
        return (
            f"Expected a token that the Hub accepts to reach '{repo_id}', got none or one that is not valid: log in "
            "with `hf auth login`, or set HF_TOKEN."
        )
    if status == 403:
        return (
            f"Expected a token that may {doing} to '{repo_id}', but this one may not: make one with the role "
            f"'{doing}' for that namespace at huggingface.co/settings/tokens."
        ).replace("read to", "read")
    if status == 404:
        return f"Expected '{repo_id}' on the Hub, but it is not there, or this token may not see it: check the name."
    if status == 412:
        return (
            f"Expected '{repo_id}' to stay as it was during the push, but somebody else pushed to it: nothing of this "
            "push was saved; check the new state and repeat the command."
        )
    if status in (400, 422):
        said = " ".join(str(error.server_message or "no reason was given").split()).rstrip(".")[:300]
        said = re.sub(r"hf_\w+", "hf_...", said)  # no token, whoever repeats it
        return (
            f"Expected the Hub to accept what was sent to '{repo_id}', but it was refused as not valid ({said}): "
            "correct it (a --license must be one of the ids at huggingface.co/docs/hub/repositories-licenses)."
        )
    if status == 429:
        return f"Expected an answer of the Hub for '{repo_id}', but its limit of requests is reached{unchanged}"
    return f"Expected an answer of the Hub for '{repo_id}', but got the status {status}{unchanged}"
