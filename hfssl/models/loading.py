"""Loads models with a head, and copies bodies from one model to another.

Only safetensors are read. If the checkpoint has no head, a new one is initialised from `seed` and not from the global
random state. Missing body weights are an error, because a random body would train without any warning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from hfssl.config.tasks import DEFAULT_TASK, TASK_KEY
from hfssl.errors import ModelError
from hfssl.models.backbones import (
    READING_ERRORS,
    check_backbone,
    check_masked_lm,
    first_line,
    load_tokenizer,
    refuse_remote_code,
)
from hfssl.models.introspection import names_below, own_random_state
from hfssl.models.mean_pooling import MeanPooledConfig
from hfssl.models.tokenizer_checks import is_decoder

__all__ = [
    "Pooling",
    "load_classifier",
    "load_masked_lm",
    "transfer_encoder",
]

logger = transformers_logging.get_logger(__name__)

Pooling = Literal["stock", "mean"]

# Architectures whose dropout before the head is not named `classifier_dropout`.
CLASSIFIER_DROPOUT = {
    "albert": "classifier_dropout_prob",
    "deberta": "cls_dropout",
    "deberta-v2": "cls_dropout",
    "distilbert": "seq_classif_dropout",
}
NOISY_LOADERS = ("transformers.modeling_utils", "transformers.distributed.tensor_parallel")


def load_classifier(
    backbone: str | Path,
    label_names: Sequence[str],
    *,
    pooling: Pooling = "stock",
    dtype: torch.dtype = torch.float32,
    seed: int,
    classifier_dropout: float | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    auto_class: str = "AutoModelForSequenceClassification",
    problem_type: str | None = "single_label_classification",
    task: str = DEFAULT_TASK,
) -> PreTrainedModel:
    """Loads a classifier with the backbone's body and a new head, which is the same for the same seed.

    Args:
        backbone (`str | Path`): Folder or Hub id of the backbone. Its head is ignored.
        label_names (`Sequence[str]`): Class names in the order of the class numbers.
        pooling (`Pooling`, defaults to `"stock"`): Head of the classifier. `"stock"` is the architecture's own head,
            so that plain transformers loads the saved model; `"mean"` averages over the tokens, and the saved model
            needs hfssl.
        dtype (`torch.dtype`, defaults to `torch.float32`): Data type of the weights. The checkpoint's own type may be
            bfloat16, which is too coarse for fine-tuning on few rows.
        seed (`int`): Random seed of the head.
        classifier_dropout (`float`, *optional*): Dropout probability before the head. Default: that of the
            architecture.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        trust_remote_code (`bool`, defaults to `False`): Whether code in the model's repository may run.
        auto_class (`str`, defaults to `"AutoModelForSequenceClassification"`): Name of the transformers class of the
            model; `Task.model_options` returns this and the next two arguments.
        problem_type (`str | None`, defaults to `"single_label_classification"`): `problem_type` of the model's
            configuration.
        task (`str`, defaults to `DEFAULT_TASK`): Kind of prediction; any except the default is recorded in the model's
            configuration.

    Raises:
        ModelError: as in `check_backbone`, and if body weights are missing or have another shape.

    Example:
        >>> import hfssl
        >>> model = hfssl.load_classifier(backbone, ["bad", "good"], seed=0)
        >>> model.config.id2label
        {0: 'bad', 1: 'good'}
    """
    config = check_backbone(backbone, revision=revision, trust_remote_code=trust_remote_code)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    if is_decoder(config):
        _set_padding(config, backbone, **options)
    encoder, missing = _load_whole_body(AutoModel, backbone, seed, dtype, **options)
    labels = {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
        "problem_type": problem_type,
    }
    if task != DEFAULT_TASK:
        labels[TASK_KEY] = task
    if pooling == "mean":
        dropout = {} if classifier_dropout is None else {"classifier_dropout": classifier_dropout}
        config = MeanPooledConfig(text_config=config.to_dict(), **dropout, **labels)
        config.name_or_path = str(backbone)
    else:
        for name, value in labels.items():
            setattr(config, name, value)
        if classifier_dropout is not None:
            _set_classifier_dropout(config, classifier_dropout)
    with own_random_state(seed):
        factory = getattr(transformers, auto_class)
        model = factory.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    _copy_body(encoder, model.base_model, keep=missing)
    return model.eval()


def load_masked_lm(
    backbone: str | Path,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    trust_remote_code: bool = False,
    own_head: bool = False,
) -> PreTrainedModel:
    """Loads the backbone with the masked-language head of the checkpoint, or else one tied to the input embeddings.

    MiniLM and other sentence encoders have no such head. The new head's transform and bias are then initialised from
    `seed`; the decoder's weights are the input embeddings. With `own_head` such a checkpoint is refused: its new head
    predicts nothing yet.

    Raises:
        ModelError: as in `check_backbone`, and if the architecture has no masked-language head or body weights are
            missing.

    Example:
        >>> import hfssl
        >>> type(hfssl.load_masked_lm(backbone, seed=0)).__name__
        'BertForMaskedLM'
    """
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = check_masked_lm(backbone, **options)
    model, missing = _load_whole_body(AutoModelForMaskedLM, backbone, seed, dtype, **options)
    fresh_head = bool(missing - set(names_below(model, model.base_model)))
    if fresh_head and own_head:
        raise ModelError(
            f"Expected a masked-language head in '{backbone}', found none (sentence encoders have none): name a masked"
            " language model such as BERT, or train one with the recipe masked_span."
        )
    decoder, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if fresh_head and decoder.weight is not embeddings.weight:  # pyright: ignore[reportOptionalMemberAccess]
        raise ModelError(
            f"Expected the new masked-language head of '{backbone}' to share its decoder with the input embeddings, "
            f"but its architecture '{config.model_type}' keeps them apart (tie_word_embeddings): use a checkpoint "
            "that has a masked-language head, or skip the pretext stage."
        )
    return model.eval()


def transfer_encoder(source: PreTrainedModel, target: PreTrainedModel) -> None:
    """Copies the body's weights from `source` into `target`, for example from a masked LM into a classifier.

    Args:
        source (`PreTrainedModel`): Model to copy from, unchanged. An adapter must be merged first.
        target (`PreTrainedModel`): Model to copy into, with the same architecture and sizes. Its head is unchanged,
            and so is its pooler if the source has none.

    Raises:
        ModelError: if the two bodies do not have the same weights in the same shapes. Nothing is copied then.
    """
    _copy_body(source.base_model, target.base_model)


def _set_padding(config: PreTrainedConfig, backbone: str | Path, **options: Any) -> None:
    """Sets the padding token of a decoder to the tokenizer's: its head reads the last token that is not padding."""
    text_config = config.get_text_config()
    try:
        text_config.pad_token_id = load_tokenizer(backbone, **options).pad_token_id
    except ModelError:
        if text_config.pad_token_id is None:
            raise


def _set_classifier_dropout(config: PreTrainedConfig, value: float) -> None:
    name = CLASSIFIER_DROPOUT.get(config.model_type, "classifier_dropout")
    if name not in config.to_dict():
        raise ModelError(
            f"Expected an architecture with dropout before its head, but '{config.model_type}' has none in its "
            "configuration: leave classifier_dropout out."
        )
    setattr(config, name, value)


def load_pretrained(auto_class, path, seed: int, dtype, **options) -> tuple[PreTrainedModel, set[str]]:
    """Loads safetensors and initialises missing weights from `seed`; returns the model and their names."""
    try:
        with own_random_state(seed), _quiet_loading():
            model, info = auto_class.from_pretrained(
                path,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below
                **options,
            )
    except READING_ERRORS as error:
        refuse_remote_code(path, error)
        raise ModelError(f"Expected readable safetensors weights in '{path}', but: {first_line(error)}") from error
    return model, set(info["missing_keys"]) | {name for name, *_ in info["mismatched_keys"]}


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Hides the table of new weights (the caller checks them), "not sharded" and the progress bar."""
    loggers = [logging.getLogger(name) for name in NOISY_LOADERS]
    levels, bar = [logger.level for logger in loggers], transformers_logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bar:
            transformers_logging.enable_progress_bar()


def _load_whole_body(auto_class, backbone, seed: int, dtype, **options) -> tuple[PreTrainedModel, set[str]]:
    """Runs `load_pretrained`; of the body only the pooler may be missing, as checkpoints of masked LMs have none."""
    model, missing = load_pretrained(auto_class, backbone, seed, dtype, **options)
    absent = sorted(name for name in missing & set(names_below(model, model.base_model)) if not _in_pooler(name))
    if absent:
        raise ModelError(
            f"Expected all weights of the encoder in '{backbone}', but {len(absent)} are missing or have another "
            f"shape than config.json says, for example '{absent[0]}': the folder mixes files of two models, or its "
            "weights were saved under other names."
        )
    return model, missing


def _in_pooler(name: str) -> bool:
    return "pooler" in name.split(".")


def _copy_body(source: nn.Module, target: nn.Module, keep: Iterable[str] = ()) -> None:
    """Copies weights of `source` into `target`, except names in `keep` and a pooler that only one model has."""
    given, wanted = source.state_dict(), target.state_dict()
    differing = sorted(
        name
        for name in given.keys() | wanted.keys()
        if not (name in given and name in wanted and given[name].shape == wanted[name].shape) and not _in_pooler(name)
    )
    if differing or type(source) is not type(target):
        example = f", for example '{differing[0]}'" if differing else ""
        raise ModelError(
            f"Expected two models with the same encoder, but {type(source).__name__} and {type(target).__name__} "
            f"differ in {len(differing)} weights{example}: start both from one backbone, and merge adapters first."
        )
    with torch.no_grad():
        for name in (given.keys() & wanted.keys()) - set(keep):
            wanted[name].copy_(given[name])
