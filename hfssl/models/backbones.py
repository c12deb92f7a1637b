"""Checks backbones on disk or on the Hub, and loads their tokenizers. Reads no weights.

Only safetensors are accepted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file, logging  # pyright: ignore[reportPrivateImportUsage]

from hfssl.errors import ModelError
from hfssl.models.tokenizer_checks import fit_tokenizer

__all__ = [
    "READING_ERRORS",
    "check_backbone",
    "check_files",
    "check_masked_lm",
    "first_line",
    "load_tokenizer",
    "refuse_remote_code",
]

logger = logging.get_logger(__name__)

INDEX = "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", INDEX)
# Pickles, which can run code when they are loaded, and formats that transformers 5 no longer reads.
REFUSED_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")
READING_ERRORS = (OSError, ValueError, SafetensorError)


def refuse_remote_code(path: str | Path, error: Exception) -> None:
    """Raises a `ModelError` if `error` is transformers' refusal to run code in the model's repository."""
    if "trust_remote_code" in str(error):
        raise ModelError(
            f"Expected a model that transformers supports, but '{path}' has its own code, which was not run: read "
            "it, and pass trust_remote_code=True if you trust it."
        ) from None


def check_backbone(
    backbone: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """Checks that a backbone can be loaded with a classification head, without reading its weights.

    Args:
        backbone (`str | Path`): Folder with `config.json` and `model.safetensors`, or Hub id.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        trust_remote_code (`bool`, defaults to `False`): Whether code in the model's repository may run.

    Returns:
        Configuration of the backbone.

    Raises:
        ModelError: if the backbone is neither a folder nor a known id, lacks files, is an encoder-decoder, is
            quantised, or has no classification head.
    """
    check_exists(backbone)
    folder = Path(backbone)
    if folder.is_dir():
        check_files(folder)
    try:
        config = AutoConfig.from_pretrained(backbone, revision=revision, trust_remote_code=trust_remote_code)
    except READING_ERRORS as error:
        refuse_remote_code(backbone, error)
        if folder.is_dir():
            raise ModelError(
                f"Expected '{folder / 'config.json'}' to describe a model, but: {first_line(error)}"
            ) from error
        raise ModelError(
            f"Expected the backbone '{backbone}' to be a folder or a Hub id, but there is no such folder, and the "
            "id is neither in the local cache nor can it be reached (offline, or misspelled): give a folder with "
            "config.json, model.safetensors and the tokenizer's files."
        ) from error
    if not folder.is_dir():
        _check_remote_index(str(backbone), revision)
    _check_kind(config, backbone)
    remote = config.to_dict().get("auto_map", {}) if trust_remote_code else {}
    if "AutoModelForSequenceClassification" not in remote and not (
        type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING and type(config) in MODEL_MAPPING
    ):
        raise ModelError(
            f"Expected a text encoder, but transformers has no sequence-classification head for the architecture "
            f"'{config.model_type}' of '{backbone}': use an encoder such as BERT, RoBERTa, DeBERTa or ModernBERT."
        )
    return config


def _check_kind(config: PreTrainedConfig, backbone: str | Path) -> None:
    """Refuses what cannot be trained as a classifier on its own: encoder-decoders and quantised weights."""
    told = config.to_dict()
    if told.get("is_encoder_decoder"):
        raise ModelError(
            f"Expected an encoder or a decoder, but '{backbone}' ('{config.model_type}') is an encoder-decoder, whose "
            "two stacks hfssl does not train: use an encoder such as BERT, RoBERTa, DeBERTa or ModernBERT."
        )
    if told.get("quantization_config"):
        raise ModelError(
            f"Expected weights in float32, bfloat16 or float16, but those of '{backbone}' are quantised, which cannot "
            "be trained: use the model from before the quantisation."
        )


def _check_remote_index(name: str, revision: str | None) -> None:
    """Checks the index of a Hub model whose weights are in several files."""
    try:
        index = cached_file(name, INDEX, revision=revision, _raise_exceptions_for_missing_entries=False)
    except READING_ERRORS:
        return  # there is none that could be read: loading the weights reports why
    if index is not None:
        _check_index(Path(index), files=False)


def _check_index(index: Path, *, files: bool = True) -> None:
    """Checks that an index names safetensors in its own folder, since it decides which files are opened.

    Args:
        index (`Path`): The index.
        files (`bool`, defaults to `True`): Whether the named files must be there.

    Raises:
        ModelError: if the index cannot be read, or names another kind of file, another folder or a missing file.
    """
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(
            f"Expected '{index}' to list the files of the weights (a JSON object with `weight_map`), but it cannot be "
            "read: copy the model again."
        ) from error
    for name in sorted(map(str, named)):
        if not name.endswith(".safetensors") or Path(name).name != name or "\\" in name:
            raise ModelError(
                f"Expected '{index}' to name safetensors files in its own folder, but it names '{name}': save the "
                "model with save_pretrained of a current transformers."
            )
        if files and not (index.parent / name).is_file():
            raise ModelError(f"Expected '{name}' in '{index.parent}', as its index says: copy the missing file there.")


def check_masked_lm(
    backbone: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """Checks that a backbone can be loaded with a masked-language head; see `check_backbone`.

    Raises:
        ModelError: as in `check_backbone`, and if the architecture has no masked-language head.
    """
    config = check_backbone(backbone, revision=revision, trust_remote_code=trust_remote_code)
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise ModelError(
            f"Expected an encoder with a masked-language head for the pretext task, but transformers has none for the "
            f"architecture '{config.model_type}' of '{backbone}': use another backbone or skip the pretext stage "
            "(--no-pretext)."
        )
    return config


def load_tokenizer(
    path: str | Path, *, max_length: int | None = None, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a backbone or of a saved model, fitted to that model (`fit_tokenizer`).

    Args:
        path (`str | Path`): Folder or Hub id.
        max_length (`int`, *optional*): Largest number of tokens per text. It is saved with the tokenizer, so that
            inference cuts texts as training did. The backbone's own limit applies where it is lower. Default: the
            limit of the tokenizer.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        trust_remote_code (`bool`, defaults to `False`): Whether code in the model's repository may run.

    Raises:
        ModelError: if files of the tokenizer are missing (transformers would create an empty one), no token can pad,
            or a token has no embedding.

    Example:
        >>> import hfssl
        >>> hfssl.load_tokenizer(backbone, max_length=32).model_max_length
        32
    """
    check_exists(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
    except READING_ERRORS as error:
        raise ModelError(f"Expected a tokenizer in '{path}', but: {first_line(error)}") from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ModelError(
            f"Expected a tokenizer in '{path}', but its vocabulary is missing: copy tokenizer.json (or vocab.txt, or "
            "the SentencePiece model) of the backbone there."
        )
    config = _configuration(path, max_length is not None, revision=revision, trust_remote_code=trust_remote_code)
    if config is not None:
        fit_tokenizer(tokenizer, config, path)
    elif tokenizer.pad_token is None:
        raise ModelError(
            f"Expected a tokenizer that can pad, but that of '{path}' has no padding token: set tokenizer.pad_token "
            "to a token of its vocabulary, and save it again."
        )
    if max_length is not None:
        limit = tokenizer.model_max_length
        if max_length > limit:
            logger.info("max_length is %d, but '%s' reads %d tokens: texts are cut there.", max_length, path, limit)
        tokenizer.model_max_length = min(max_length, limit)
    return tokenizer


def _configuration(path: str | Path, required: bool, **options: Any) -> PreTrainedConfig | None:
    """Returns the configuration of the model in a folder; `None` for a folder with a tokenizer alone."""
    if required:
        return check_backbone(path, **options)
    try:
        return AutoConfig.from_pretrained(path, **options)
    except READING_ERRORS:
        return None


def check_files(folder: Path) -> None:
    """Checks that a folder holds a full model in safetensors.

    Raises:
        ModelError: if the folder holds an adapter, no configuration, no weights, or pickled weights.
    """
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"Expected a full model in '{folder}', but it holds an adapter: load it with "
            "hfssl.models.auto.from_pretrained, or give the folder of its merged model."
        )
    if not (folder / "config.json").is_file():
        inner = folder / "model"  # of a finished run
        hint = f"give '{inner}'." if (inner / "config.json").is_file() else "is it the right folder?"
        raise ModelError(f"Expected a model in the folder '{folder}', but it has no config.json: {hint}")
    if not any((folder / name).is_file() for name in WEIGHTS):
        refused = [path.name for path in sorted(folder.iterdir()) if path.name in REFUSED_WEIGHTS]
        found = (
            f"only {', '.join(refused)}, which hfssl does not read (pickles can run code)" if refused else "no weights"
        )
        raise ModelError(
            f"Expected model.safetensors in the folder '{folder}', but found {found}: save the model with "
            "save_pretrained of a current transformers, which writes safetensors."
        )
    if not (folder / "model.safetensors").is_file():
        _check_index(folder / INDEX)


def check_exists(path: str | Path) -> None:
    """Raises a `ModelError` for a path without a folder, before the path is treated as a Hub id."""
    looks_like_path = Path(path).is_absolute() or str(path).startswith((".", "~")) or str(path).count("/") > 1
    if (looks_like_path or Path(path).exists()) and not Path(path).is_dir():
        raise ModelError(f"Expected '{path}' to be a model's folder or a Hub id, but there is no such folder.")


def first_line(error: BaseException) -> str:
    """Returns the first line of another library's error, for use in an error message."""
    return str(error).strip().partition("\n")[0]
