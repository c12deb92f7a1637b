"""To the Hub: which files of a run go there, in one commit, and what goes wrong in words.

Weights are safetensors only, and nobody's texts are pushed unless asked for: of the splits only the manifest goes,
which names rows by id and fingerprint. A push that fails has changed nothing on the Hub and can be repeated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import httpx, validate_repo_id
from transformers.utils import logging

from hfssl.adapters import LABELS_FILE
from hfssl.cards import run_card
from hfssl.errors import ModelError
from hfssl.remote import in_words

__all__ = ["Pushed", "files_to_push", "push"]

logger = logging.get_logger(__name__)

What = Literal["model", "adapter", "both"]
T = TypeVar("T")

ADAPTER = "adapter"  # the folder of a run, and that of a repository which holds a model, too
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
TRANSIENT = (429, 500, 502, 503, 504)
TRIES, FIRST_WAIT = 5, 1.0  # waits of 1, 2, 4 and 8 seconds, or what the server asks for


@dataclass(frozen=True)
class Pushed:
    """What a push has done, or would do.

    Attributes:
        files: Path in the repository -> bytes.
        url: Of the commit; `None` for a dry run.
        oid: Of the commit; `None` for a dry run.
    """

    files: dict[str, int]
    url: str | None = None
    oid: str | None = None


def files_to_push(
    folder: str | Path, repo_id: str, what: What = "model", *, texts: bool = False
) -> dict[str, Path | bytes]:
    """Which files go to the Hub, and under which names.

    Args:
        folder: a run of `fit`, or the folder of a model or an adapter.
        repo_id: as it will be named in the card.
        what: of a run: the merged `"model"`, the `"adapter"`, or `"both"` (the adapter then lies in `adapter/`).
        texts: whether the report goes too, which shows some of the user's texts.

    Returns:
        Path in the repository -> `Path` of the file, or its content as `bytes`.

    Raises:
        ModelError: if there is nothing of that kind in the folder, or only a pickle.
    """
    folder = Path(folder)
    if not (folder / "results.json").is_file():
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise ModelError(
                f"Expected a finished run of hfssl fit, a model or an adapter in '{folder}', but it has no "
                "results.json, config.json or adapter_config.json: give the --output-dir of the run."
            )
        return _files_below(folder)
    files: dict[str, Path | bytes] = {}
    parts = {"model": ["model"], "adapter": [ADAPTER], "both": ["model", ADAPTER]}[what]
    for part in parts:
        if not (folder / part).is_dir():
            raise ModelError(
                f"Expected the folder '{folder / part}' to push the {part}, but there is none"
                + ("; the run trained all weights (--adapter lora makes one)." if part == ADAPTER else ".")
            )
        files |= _files_below(folder / part, f"{ADAPTER}/" if part == ADAPTER and what == "both" else "")
    results, settings = (_read(folder / name) for name in ("results.json", "settings.json"))
    card = run_card(
        results,
        settings,
        uses_adapter=ADAPTER in parts,
        model_path=repo_id,
        adapter_path=repo_id,
        adapter_subfolder=ADAPTER if what == "both" else None,
        adapter_only=what == "adapter",
    )
    files["README.md"] = card.encode()
    files["results.json"] = folder / "results.json"
    files["splits/manifest.json"] = folder / "splits" / "manifest.json"
    if texts:
        files["report.html"] = folder / "report.html"
    return files


def push(
    folder: str | Path,
    repo_id: str,
    *,
    what: What = "model",
    private: bool | None = None,
    revision: str | None = None,
    texts: bool = False,
    dry_run: bool = False,
    token: str | None = None,
    message: str = "Push with hfssl",
    wait: Callable[[float], None] = time.sleep,
) -> Pushed:
    """Pushes a run, a model or an adapter in one commit; see `files_to_push` for what goes.

    Server errors, rate limits and dropped connections are tried again, with growing waits. Large files that arrived
    before a failure are not sent a second time.

    Args:
        folder: a run of `fit`, or the folder of a model or an adapter.
        repo_id: `name` or `namespace/name`; made if it is not there.
        what: of a run: `"model"`, `"adapter"` or `"both"`.
        private: of a repository that is made. Default: as the namespace has it.
        revision: branch, made if it is not there. Default: `main`.
        texts: whether the report goes too, which shows some of the user's texts.
        dry_run: looks at the files and sends nothing.
        token: default: the one that `hf auth login` saved, or `HF_TOKEN`.
        message: of the commit.
        wait: for tests.

    Raises:
        ModelError: in one sentence: nothing to push, a token that is not valid or may not write, somebody else's push
            in between, a server that stays away. The Hub is then as it was.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ModelError(f"Expected a repository as name or namespace/name, got '{repo_id}': {error}") from None
    files = files_to_push(folder, repo_id, what, texts=texts)
    sizes = {name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in files.items()}
    if dry_run:
        return Pushed(sizes)
    api = HfApi(token=token)

    def prepare() -> tuple[str, str | None]:
        name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        return name, api.model_info(name, revision=revision).sha

    name, head = _insisting(prepare, repo_id, wait)

    def commit() -> Pushed:
        # New operations for each try: one that failed half-way keeps what it believes to have been sent.
        operations = [CommitOperationAdd(path, file) for path, file in files.items()]
        done = api.create_commit(
            name, operations, commit_message=message, revision=revision, parent_commit=head, num_threads=2
        )
        return Pushed(sizes, done.commit_url, done.oid)

    return _insisting(commit, name, wait)


def _files_below(folder: Path, prefix: str = "") -> dict[str, Path | bytes]:
    """Path in the repository -> file, for all files of a model or an adapter."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if pickles := [path for path in paths if path.suffix in PICKLES]:
        raise ModelError(
            f"Expected safetensors, but '{pickles[0]}' is a pickle, which can run code when it is loaded: save the "
            "model with save_pretrained of a current transformers, and remove that file."
        )
    labels = folder / LABELS_FILE
    if labels.is_file() and Path(base := _read(labels)["base_model"]).is_absolute():
        logger.warning(
            "The adapter's base model is the folder '%s' of this machine, where nobody else can load it from: train "
            "on a Hub id, or push the merged model.",
            base,
        )
    return {f"{prefix}{path.relative_to(folder).as_posix()}": path for path in paths}


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
                pause = float(cause.response.headers.get("Retry-After", pause))
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


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"Expected '{path}' of a finished run, but it cannot be read: {error}.") from error
