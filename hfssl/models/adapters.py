"""Builds LoRA adapters, saves them with their labels, loads them and merges them.

A classification adapter of peft holds neither the number of labels nor their names. A `config.json` next to it would
make transformers treat the folder as a full model. So hfssl saves a small file, `hfssl_labels.json`, next to peft's
files.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hfssl.config.tasks import DEFAULT_TASK, TASK_KEY
from hfssl.errors import ConfigurationError, ModelError, near_matches
from hfssl.models.introspection import own_random_state, transformers_model
from hfssl.models.loading import CLASSIFIER_DROPOUT, load_classifier
from hfssl.models.mean_pooling import MeanPooledForSequenceClassification
from hfssl.runtime.files import atomic_directory, write_json

if TYPE_CHECKING:
    from hfssl.config.arguments import AdapterArguments

__all__ = [
    "LABELS_FILE",
    "add_adapter",
    "build_lora_config",
    "describe_adapter",
    "label_map",
    "load_adapter",
    "merge",
    "requested_lora_config",
    "save_adapter",
    "trainable_copy",
]

LABELS_FILE = "hfssl_labels.json"
DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}
LINEAR = (nn.Linear, Conv1D)  # GPT-2's linear layers, whose weights are transposed
logger = logging.getLogger(__name__)


def build_lora_config(
    model: PreTrainedModel,
    *,
    r: int = 8,
    alpha: int = 16,
    dropout: float = 0.1,
    target_modules: Sequence[str] | None = None,
    task: str = DEFAULT_TASK,
    peft_task: str = "SEQ_CLS",
) -> LoraConfig:
    """Builds the configuration of LoRA (Hu et al. 2022) on the encoder's linear layers, with the head trained in full.

    Args:
        model (`PreTrainedModel`): Plain model from `load_classifier` or `load_masked_lm`, whose layers get the
            adapter.
        r (`int`, defaults to `8`): Rank of the adapter.
        alpha (`int`, defaults to `16`): Scale of the adapter: the update is multiplied by alpha / r.
        dropout (`float`, defaults to `0.1`): Dropout on the adapter's input; MC dropout uses it in addition to the
            body's dropout.
        target_modules (`Sequence[str]`, *optional*): Last parts of the names of linear layers, for example `("query",
            "value")`. Default: all linear layers of the encoder (attention and feed-forward, as in QLoRA), under any
            name; never the head.
        task (`str`, defaults to `DEFAULT_TASK`): Kind of prediction, or `"masked_lm"`. For `"masked_lm"` the head's
            transform is trained in full and saved with the adapter, while its decoder stays tied to the frozen
            embeddings. For kinds of prediction the head and the pooler are trained in full.
        peft_task (`str`, defaults to `"SEQ_CLS"`): Peft's `task_type` for the kind of prediction.

    Raises:
        ConfigurationError: if a target is not a linear layer of the encoder.

    Example:
        >>> import hfssl
        >>> model = hfssl.load_classifier(backbone, ["bad", "good"], seed=0)
        >>> hfssl.build_lora_config(model, r=4).r
        4
    """
    prefix, layers = _linear_layers(model)
    if target_modules is None:
        target_modules = layers
        logger.info("LoRA goes on the encoder's linear layers %s", ", ".join(layers))
    unknown = [name for name in target_modules if name not in layers]
    if unknown or not target_modules:
        raise ConfigurationError(
            [
                f"Expected target_modules to name linear layers of the encoder ({', '.join(layers)}), got '{name}'."
                + near_matches(name, layers)
                for name in unknown or [""]
            ]
        )
    classification = task != "masked_lm"
    return LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        # A pattern and not a list of endings: names of layers in BERT's pooler and language head also end in `dense`.
        target_modules=rf"{re.escape(prefix)}\.(?!pooler\.).*\b({'|'.join(map(re.escape, target_modules))})",
        task_type=peft_task if classification else None,  # peft has no type for masked language models
        modules_to_save=_head_with_pooler(model) if classification else _language_head(model),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.base_model.modules()),
    )


def requested_lora_config(
    arguments: AdapterArguments, model: PreTrainedModel, task: str, peft_task: str = "SEQ_CLS"
) -> LoraConfig | None:
    """Returns `build_lora_config` with the user's options; `None` where all weights are trained."""
    if arguments.adapter == "none":
        return None
    return build_lora_config(
        model,
        r=arguments.lora_r,
        alpha=arguments.lora_alpha,
        dropout=arguments.lora_dropout,
        task=task,
        peft_task=peft_task,
    )


def describe_adapter(config: PeftConfig) -> dict[str, Any]:
    """Returns adapter settings as plain JSON values, the same for equal settings.

    Args:
        config (`PeftConfig`): Settings of an adapter.
    """
    told = {name: value for name, value in config.to_dict().items() if value is not None}
    return json.loads(json.dumps(told, sort_keys=True, default=lambda value: sorted(map(str, value))))


def add_adapter(model: PreTrainedModel, config: LoraConfig, *, seed: int) -> PeftModel:
    """Freezes the body and adds a new adapter, initialised from `seed` and not from the global random state.

    Args:
        model (`PreTrainedModel`): Model that gets the adapter's layers, in place.
        config (`LoraConfig`): Configuration of the adapter, from `build_lora_config`.
        seed (`int`): Random seed of the adapter's initial weights, which do not change the model's outputs.
    """
    with own_random_state(seed), _without_peft_deprecations():
        return get_peft_model(model, config)


def save_adapter(
    model: PeftModel, directory: str | Path, label_names: Sequence[str], *, base_model: str | Path | None = None
) -> None:
    """Writes the adapter with the head and its labels, atomically.

    Args:
        model (`PeftModel`): Classifier with an adapter.
        directory (`str | Path`): Folder to write, replaced as a whole. It holds no `config.json` (see above), and none
            may be added.
        label_names (`Sequence[str]`): In the order of the class numbers.
        base_model (`str | Path`, *optional*): Folder or Hub id of the body that the adapter was trained on. Default:
            the source of the model. If the body has changed since (a pretext stage), the folder of the changed body.

    Raises:
        ModelError: if there are not as many names as labels.
    """
    labels = label_map(model, label_names, base_model=base_model)
    with atomic_directory(directory) as temporary:
        # "auto" would request the base model's vocabulary size from the Hub; the embeddings are always frozen.
        model.save_pretrained(str(temporary), save_embedding_layers=False)
        (temporary / "README.md").unlink()  # peft's card is an empty template
        write_json(temporary / LABELS_FILE, labels)


def label_map(model: PeftModel, label_names: Sequence[str], *, base_model: str | Path | None = None) -> dict[str, Any]:
    """Returns the content of `hfssl_labels.json`, and sets the same base model in peft's configuration.

    Args:
        model (`PeftModel`): Classifier with an adapter, with complete weights in this process.
        label_names (`Sequence[str]`): In the order of the class numbers.
        base_model (`str | Path`, *optional*): Folder or Hub id of the body; see `save_adapter`.

    Raises:
        ModelError: if there are not as many names as labels.
    """
    inner = transformers_model(model)
    if len(label_names) != inner.config.num_labels:
        raise ModelError(
            f"Expected {inner.config.num_labels} label names for the adapter, but got {len(label_names)}."
        )
    base_model = str(base_model or inner.name_or_path)
    if Path(base_model).is_dir():
        base_model = str(Path(base_model).resolve())  # absolute, since another working directory may load the adapter
    config = model.peft_config[model.active_adapter]  # pyright: ignore[reportArgumentType]
    config.base_model_name_or_path = base_model
    # peft adds the names of common heads again each time an adapter is added or loaded.
    config.modules_to_save = list(dict.fromkeys(config.modules_to_save or ())) or None  # pyright: ignore[reportAttributeAccessIssue]
    told = inner.config.to_dict()
    labels = {
        "schema_version": 1,
        "base_model": base_model,
        "body_digest": _body_digest(inner),
        "num_labels": len(label_names),
        "label_names": list(label_names),
        "pooling": "mean" if isinstance(inner, MeanPooledForSequenceClassification) else "stock",
        "classifier_dropout": told.get(_dropout_name(inner)),
        "dtype": str(inner.dtype),
    }
    if TASK_KEY in told:
        head = type(inner).__name__.rpartition("For")[2]
        task = {"auto_class": f"AutoModelFor{head}", "problem_type": inner.config.problem_type, "task": told[TASK_KEY]}
        labels["model_options"] = task
    return labels


def load_adapter(
    directory: str | Path,
    base: str | Path | None = None,
    *,
    trainable: bool = False,
    trust_remote_code: bool = False,
) -> PeftModel:
    """Loads an adapter that `save_adapter` wrote, with its base model and its label names.

    Args:
        directory (`str | Path`): Folder of the adapter.
        base (`str | Path`, *optional*): Folder or Hub id of the base model, if it has moved from the saved place.
        trainable (`bool`, defaults to `False`): Whether the adapter and the head get gradients.
        trust_remote_code (`bool`, defaults to `False`): Whether code in the base model's repository may run.

    Raises:
        ModelError: if files are missing, or the base model is not the one that the adapter was trained on.
    """
    directory = Path(directory)
    for name in (LABELS_FILE, "adapter_config.json", "adapter_model.safetensors"):
        if not (directory / name).is_file():
            raise ModelError(
                f"Expected an adapter saved by hfssl in '{directory}', but {name} is missing: give the folder that "
                "save_adapter (or hfssl fit) wrote."
            )
    labels: dict[str, Any] = json.loads((directory / LABELS_FILE).read_text(encoding="utf-8"))
    backbone = labels["base_model"] if base is None else base
    model = load_classifier(
        backbone,
        labels["label_names"],
        pooling=labels["pooling"],
        dtype=DTYPES[labels["dtype"]],
        seed=0,  # seed of a head that the adapter's head replaces
        classifier_dropout=labels["classifier_dropout"],
        trust_remote_code=trust_remote_code,
        **labels.get("model_options", {}),
    )
    if _body_digest(model) != labels["body_digest"]:
        raise ModelError(
            f"Expected the base model that the adapter '{directory}' was trained on, but the weights of '{backbone}' "
            "differ from it: give base= the folder of that very model (after a pretext stage: the adapted one)."
        )
    with own_random_state(0), _without_peft_deprecations():
        return PeftModel.from_pretrained(model, str(directory), is_trainable=trainable).eval()


def trainable_copy(model: nn.Module) -> nn.Module:
    """Returns a copy with trainable parameters: all of a full model, or those that an adapter trains."""
    fresh = deepcopy(model)
    if not isinstance(fresh, PeftModel):
        return fresh.requires_grad_(True)
    fresh.set_adapter(fresh.active_adapter)  # pyright: ignore[reportArgumentType]
    for config in fresh.peft_config.values():
        config.inference_mode = False
    return fresh


def merge(model: PeftModel) -> PreTrainedModel:
    """Merges the adapter into the body's weights; returns a plain transformers model, all of it trainable.

    Args:
        model (`PeftModel`): Model with an adapter; its layers become part of the result, so it cannot be used
            afterwards.

    Example:
        >>> import hfssl
        >>> from hfssl.models.adapters import add_adapter
        >>> model = hfssl.load_classifier(backbone, ["bad", "good"], seed=0)
        >>> adapter = add_adapter(model, hfssl.build_lora_config(model), seed=0)
        >>> type(hfssl.merge(adapter)).__name__
        'BertForSequenceClassification'
    """
    merged = model.merge_and_unload()
    merged.requires_grad_(True)
    if isinstance(merged, MeanPooledForSequenceClassification):
        merged.freeze_unused()
    return merged


def _linear_layers(model: PreTrainedModel) -> tuple[str, list[str]]:
    """Returns the encoder's name in the model, and last parts of its linear layers' names, except the pooler's."""
    body = model.base_model
    prefix = next(name for name, module in model.named_modules() if module is body)
    names = [
        name.split(".")
        for name, module in body.named_modules()
        if isinstance(module, LINEAR) and not name.startswith("pooler.")
    ]
    return prefix, list(dict.fromkeys(parts[-1] for parts in names))


def _head_with_pooler(model: PreTrainedModel) -> list[str]:
    """Returns the head's modules with the pooler, which is as random as the head where the checkpoint lacks it."""
    body = model.base_model
    names = [name for name, child in model.named_children() if child is not body and list(child.parameters())]
    if isinstance(model, MeanPooledForSequenceClassification):
        return names
    return names + [f"{model.base_model_prefix}.{name}" for name, _ in body.named_children() if name == "pooler"]


def _language_head(model: PreTrainedModel) -> list[str]:
    """Returns the head's layers with own weights; a copy of the decoder would not be tied to the embeddings."""
    body = {id(parameter) for parameter in model.base_model.parameters()}
    decoder = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.LayerNorm)
        and module is not decoder
        and not any(id(parameter) in body for parameter in module.parameters())
    ]


def _dropout_name(model: PreTrainedModel) -> str:
    return CLASSIFIER_DROPOUT.get(model.config.model_type, "classifier_dropout")


def _body_digest(model: PreTrainedModel) -> str:
    """Returns the BLAKE2b hash of the frozen body's weights, the same with and without an adapter."""
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(model.base_model.named_parameters()):
        if not {"lora_A", "lora_B", "pooler"} & set(name.split(".")):
            digest.update(name.replace(".base_layer.", ".").encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]
    return digest.hexdigest()


@contextmanager
def _without_peft_deprecations() -> Iterator[None]:
    """Hides a deprecation warning: peft 0.21 uses the old name of a property of transformers 5.23."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield
