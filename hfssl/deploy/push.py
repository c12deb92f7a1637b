"""Pushes the files of a run to the Hub in one commit.

Weights are safetensors only, and no texts are pushed by default: of the splits only the manifest is pushed, which
holds ids and fingerprints of rows. A failed push changes nothing on the Hub and can be repeated.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from transformers.utils import logging

from hfssl.errors import ModelError
from hfssl.hub.upload import Pushed, check_repo_id, commit, sizes_of
from hfssl.models.adapters import LABELS_FILE
from hfssl.pipeline.run_folder import check_finished, model_and_splits
from hfssl.reporting.markdown import private_command
from hfssl.reporting.model_card import run_card
from hfssl.reporting.results import read_results
from hfssl.runtime.ledger import SEAL, check_seal, sealed_files

__all__ = ["Pushed", "files_below", "files_to_push", "push"]

logger = logging.get_logger(__name__)

Artifact = Literal["model", "adapter", "both"]

ADAPTER = "adapter"  # folder of the adapter in a run, and in a repository that also holds a model
# What `save_pretrained` of a model, a tokenizer, a processor and an adapter writes.
KNOWN = re.compile(
    r"(adapter_|generation_|tokenizer_|preprocessor_|processor_|special_tokens_map|added_tokens)?(config)?\.json"
    r"|[\w.-]+\.safetensors(\.index\.json)?|tokenizer\.json|vocab\.(json|txt)|merges\.txt|[\w.-]+\.model"
    r"|(chat_template|vocab|spiece)\.(jinja|bpe)|modules\.json|README\.md|" + re.escape(LABELS_FILE)
)
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def files_to_push(
    folder: str | Path,
    repo_id: str,
    artifact: Artifact = "model",
    *,
    include_report: bool = False,
    license: str | None = None,
) -> dict[str, Path | bytes]:
    """Returns the files to push and their names on the Hub.

    Args:
        folder (`str | Path`): Folder of a run of `fit`, of a model, or of an adapter.
        repo_id (`str`): Name of the repository, for the card.
        artifact (`Artifact`, defaults to `"model"`): For a run, what to push: the merged `"model"`, the `"adapter"`,
            or `"both"` (with the adapter in `adapter/`).
        include_report (`bool`, defaults to `False`): Whether to push the report, which shows some of the user's
            texts.
        license (`str`, *optional*): Hub license id such as `"apache-2.0"`, for the card of a run.

    Returns:
        path in the repository -> `Path` of the file, or its content as `bytes`.

    Raises:
        ModelError: if the folder holds no such artifact, or only a pickle.
    """
    folder = Path(folder)
    if not (folder / "results.json").is_file():
        return files_below(model_and_splits(folder)[0])
    results = read_results(folder)
    check_finished(folder)
    files: dict[str, Path | bytes] = {}
    parts = {"model": ["model"], "adapter": [ADAPTER], "both": ["model", ADAPTER]}[artifact]
    for part in parts:
        if not (folder / part).is_dir():
            raise ModelError(
                f"Expected the folder '{folder / part}' to push the {part}, but there is none"
                + ("; the run trained all weights (--adapter lora makes one)." if part == ADAPTER else ".")
            )
        files |= files_below(folder / part, f"{ADAPTER}/" if part == ADAPTER and artifact == "both" else "")
    settings = _read(folder / "settings.json")
    card = run_card(
        results,
        settings,
        license=license,
        uses_adapter=ADAPTER in parts,
        model_path=repo_id,
        adapter_path=repo_id,
        adapter_subfolder=ADAPTER if artifact == "both" else None,
        adapter_only=artifact == "adapter",
    )
    files["README.md"] = card.encode()
    shown = {**results, "command": private_command(results["command"])}  # without folders of this machine
    files["results.json"] = (json.dumps(shown, indent=2, ensure_ascii=False) + "\n").encode()
    files["splits/manifest.json"] = folder / "splits" / "manifest.json"
    if include_report:
        files["report.html"] = folder / "report.html"
    return files


def push(
    folder: str | Path,
    repo_id: str,
    *,
    artifact: Artifact = "model",
    private: bool | None = None,
    revision: str | None = None,
    include_report: bool = False,
    license: str | None = None,
    dry_run: bool = False,
    token: str | None = None,
    message: str = "Push with hfssl",
    wait: Callable[[float], None] = time.sleep,
) -> Pushed:
    """Pushes a run, a model or an adapter in one commit; `files_to_push` selects the files.

    Transient errors are retried, and other errors are raised as one sentence; see `hfssl.hub.upload.commit`.

    Args:
        folder (`str | Path`): Folder of a run of `fit`, of a model, or of an adapter.
        repo_id (`str`): `name` or `namespace/name`; created if it does not exist.
        artifact (`Artifact`, defaults to `"model"`): For a run, what to push: `"model"`, `"adapter"` or `"both"`.
        private (`bool`, *optional*): Whether a new repository is private. Default: the setting of the namespace.
        revision (`str`, *optional*): Branch, created if it does not exist. Default: `main`.
        include_report (`bool`, defaults to `False`): Whether to push the report, which shows some of the user's
            texts.
        license (`str`, *optional*): Hub license id such as `"apache-2.0"`, for the card of a run.
        dry_run (`bool`, defaults to `False`): Whether to list the files without sending them.
        token (`str`, *optional*): Access token. Default: the token that `hf auth login` saved, or `HF_TOKEN`.
        message (`str`, defaults to `"Push with hfssl"`): Commit message.
        wait (`Callable[[float], None]`, defaults to `time.sleep`): Function that waits for a number of seconds; tests
            replace it.

    Raises:
        ModelError: if there is nothing to push, if the token is not valid or may not write, if somebody else pushed in
            between, or if the server does not respond. The Hub is then unchanged.

    Example:
        >>> import hfssl
        >>> from hfssl.models.checkpoints import save_checkpoint
        >>> model = hfssl.load_classifier(backbone, ["bad", "good"], seed=0)
        >>> save_checkpoint(model, tokenizer, folder, ["bad", "good"])
        >>> sorted(hfssl.push(folder, "me/reviews", dry_run=True).files)
        ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json']
    """
    check_repo_id(repo_id)
    files = files_to_push(folder, repo_id, artifact, include_report=include_report, license=license)
    if dry_run:
        return Pushed(sizes_of(files))
    return commit(files, repo_id, message=message, private=private, revision=revision, token=token, wait=wait)


def files_below(folder: Path, prefix: str = "") -> dict[str, Path | bytes]:
    """Returns path in the repository -> file, for the files of a model or an adapter.

    These are the files that hfssl wrote, checked against their hashes; in a folder of another program, the files that
    transformers, tokenizers and peft write. All others stay here.

    Args:
        folder (`Path`): Folder of a model or an adapter.
        prefix (`str`, defaults to `""`): Start of each path in the repository.

    Raises:
        ModelError: There is a pickle.
        DamagedFile: A file is not as hfssl wrote it.
    """
    check_seal(folder)
    listed = sealed_files(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    if pickles := [path for path in paths if path.suffix in PICKLES]:
        raise ModelError(
            f"Expected safetensors, but '{pickles[0]}' is a pickle, which can run code when it is loaded: save the "
            "model with save_pretrained of a current transformers, and remove that file."
        )
    known = [
        path
        for path in paths
        if (KNOWN.fullmatch(path.name) if listed is None else path.relative_to(folder).as_posix() in listed)
    ]
    if others := [path for path in paths if path not in known and path.name != "README.md"]:
        logger.warning(
            "Not pushed, because hfssl knows no such file of a model: %s.",
            ", ".join(f"'{path.relative_to(folder).as_posix()}'" for path in others),
        )
    labels = folder / LABELS_FILE
    if labels.is_file() and Path(base := _read(labels)["base_model"]).is_absolute():
        logger.warning(
            "The adapter's base model is the folder '%s' of this machine, which other machines cannot load: train "
            "on a Hub id, or push the merged model.",
            base,
        )
    return {f"{prefix}{path.relative_to(folder).as_posix()}": path for path in known}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"Expected '{path}' of a finished run, but it cannot be read: {error}.") from error
