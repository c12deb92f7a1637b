"""Downloads a repository's files into the local cache, and translates the Hub's errors into sentences."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hfssl.errors import ModelError

__all__ = ["download", "in_words"]

WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.md"]  # so that no pickle is ever downloaded


def download(repo_id: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """Downloads a repository's configuration, safetensors and tokenizer; returns their folder in the local cache.

    Cached files are used where the Hub cannot be reached.

    Raises:
        ModelError: if there is no such repository or revision, or if it is neither reachable nor cached.
    """
    try:
        return Path(snapshot_download(repo_id, revision=revision, token=token, allow_patterns=WANTED))
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"Expected a folder or a model on the Hub, but found neither under '{repo_id}': check the name, and for a "
            "private model log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"Expected a branch, tag or commit of '{repo_id}', found no '{revision}' there.") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HFValidationError) as error:
        raise ModelError(
            f"Expected '{repo_id}' to be a folder or in the local cache, but it is neither, and the Hub cannot be "
            "reached (offline?): download it where there is a network."
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(in_words(error, repo_id)) from None


def in_words(error: HfHubHTTPError, repo_id: str) -> str:
    """Returns one sentence about an error of the Hub, without tokens and addresses."""
    status = error.response.status_code
    if status == 401:
        return (
            f"Expected a token that the Hub accepts to reach '{repo_id}', got none or one that is not valid: log in "
            "with `hf auth login`, or set HF_TOKEN."
        )
    if status == 403:
        return (
            f"Expected a token that may write to '{repo_id}', but this one may not: make one with the role 'write' "
            "for that namespace at huggingface.co/settings/tokens."
        )
    if status == 404:
        return f"Expected '{repo_id}' on the Hub, but it is not there, or this token may not see it: check the name."
    if status == 412:
        return (
            f"Expected '{repo_id}' to stay as it was during the push, but somebody else pushed to it: nothing of this "
            "push was saved; check the new state and repeat the command."
        )
    return (
        f"Expected an answer of the Hub for '{repo_id}', but got the status {status}: nothing was changed there; "
        "repeat the command later."
    )
