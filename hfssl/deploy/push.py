"""To the Hub: which files of a run go there, in one commit, and what goes wrong in words.

Weights are safetensors only, and nobody's texts are pushed unless asked for: of the splits only the manifest goes,
which names rows by id and fingerprint. A push that fails has changed nothing on the Hub and can be repeated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from transformers.utils import logging

from hfssl.errors import ModelError
from hfssl.hub.upload import Pushed, check_repo_id, commit, sizes_of
from hfssl.models.adapters import LABELS_FILE
from hfssl.pipeline.run_folder import model_and_splits
from hfssl.reporting.markdown import private_command
from hfssl.reporting.model_card import run_card
from hfssl.reporting.results import read_results

__all__ = ["Pushed", "files_below", "files_to_push", "push"]

logger = logging.get_logger(__name__)

Artifact = Literal["model", "adapter", "both"]

ADAPTER = "adapter"  # the folder of a run, and that of a repository which holds a model, too
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def files_to_push(
    folder: str | Path,
    repo_id: str,
    artifact: Artifact = "model",
    *,
    include_report: bool = False,
    license: str | None = None,
) -> dict[str, Path | bytes]:
    """Which files go to the Hub, and under which names.

    Args:
        folder: a run of `fit`, or the folder of a model or an adapter.
        repo_id: as it will be named in the card.
        artifact: of a run: the merged `"model"`, the `"adapter"`, or `"both"` (the adapter then lies in `adapter/`).
        include_report: whether the report goes too, which shows some of the user's texts.
        license: a Hub licence id such as `"apache-2.0"`, for the card of a run.

    Returns:
        Path in the repository -> `Path` of the file, or its content as `bytes`.

    Raises:
        ModelError: if there is nothing of that kind in the folder, or only a pickle.
    """
    folder = Path(folder)
    if not (folder / "results.json").is_file():
        return files_below(model_and_splits(folder)[0])
    files: dict[str, Path | bytes] = {}
    parts = {"model": ["model"], "adapter": [ADAPTER], "both": ["model", ADAPTER]}[artifact]
    for part in parts:
        if not (folder / part).is_dir():
            raise ModelError(
                f"Expected the folder '{folder / part}' to push the {part}, but there is none"
                + ("; the run trained all weights (--adapter lora makes one)." if part == ADAPTER else ".")
            )
        files |= files_below(folder / part, f"{ADAPTER}/" if part == ADAPTER and artifact == "both" else "")
    results, settings = read_results(folder), _read(folder / "settings.json")
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
    shown = {**results, "command": private_command(results["command"])}  # without the folders of this machine
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
    """Pushes a run, a model or an adapter in one commit; see `files_to_push` for what goes.

    What goes wrong is tried again or said in one sentence, see `hfssl.hub.upload.commit`.

    Args:
        folder: a run of `fit`, or the folder of a model or an adapter.
        repo_id: `name` or `namespace/name`; made if it is not there.
        artifact: of a run: `"model"`, `"adapter"` or `"both"`.
        private: of a repository that is made. Default: as the namespace has it.
        revision: branch, made if it is not there. Default: `main`.
        include_report: whether the report goes too, which shows some of the user's texts.
        license: a Hub licence id such as `"apache-2.0"`, for the card of a run.
        dry_run: looks at the files and sends nothing.
        token: default: the one that `hf auth login` saved, or `HF_TOKEN`.
        message: of the commit.
        wait: for tests.

    Raises:
        ModelError: in one sentence: nothing to push, a token that is not valid or may not write, somebody else's push
            in between, a server that stays away. The Hub is then as it was.

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


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"Expected '{path}' of a finished run, but it cannot be read: {error}.") from error
