"""LoRA adapters: where they go, how they are saved with their labels, and how they are merged away.

A classification adapter of peft carries neither the number of labels nor their names, and a `config.json` beside it
would make transformers take the folder for a full model. So a small file of our own, `hfssl_labels.json`, lies beside
peft's files.
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
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

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
    "label_map",
    "load_adapter",
    "merge",
    "requested_lora_config",
    "save_adapter",
    "trainable_copy",
]

LABELS_FILE = "hfssl_labels.json"
DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}
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
    """LoRA (Hu et al. 2022) on the linear layers of the encoder, with the head trained in full.

    Args:
        model (`PreTrainedModel`): plain, as `load_classifier` or `load_masked_lm` gave it; its own layers say where
            adapters may go.
        r (`int`, defaults to `8`): rank.
        alpha (`int`, defaults to `16`): the update is scaled by alpha / r.
        dropout (`float`, defaults to `0.1`): on the adapter's input; MC dropout draws from it as well as from the
            body's.
        target_modules (`Sequence[str]`, *optional*): last parts of the names of linear layers, e.g. `("query",
            "value")`. Default: all linear layers of the encoder (attention and feed-forward, as in QLoRA), whatever
            they are called; never the head.
        task (`str`, defaults to `DEFAULT_TASK`): for `"masked_lm"` the head's transform is trained in full and saved
            with the adapter, while its decoder stays tied to the frozen embeddings; for any kind of prediction the
            head and the pooler are.
        peft_task (`str`, defaults to `"SEQ_CLS"`): peft's `task_type` of a kind of prediction.

    Raises:
        ConfigurationError: if a target is no linear layer of the encoder.

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
        # A pattern and not a list of endings: `dense` also ends layers of BERT's pooler and of its language head.
        target_modules=rf"{re.escape(prefix)}\.(?!pooler\.).*\b({'|'.join(map(re.escape, target_modules))})",
        task_type=peft_task if classification else None,  # peft knows no masked language models
        modules_to_save=_head_with_pooler(model) if classification else _language_head(model),
    )


def requested_lora_config(
    arguments: AdapterArguments, model: PreTrainedModel, task: str, peft_task: str = "SEQ_CLS"
) -> LoraConfig | None:
    """`build_lora_config` with what the user asked for; `None` where all weights are trained."""
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


def add_adapter(model: PreTrainedModel, config: LoraConfig, *, seed: int) -> PeftModel:
    """Freezes the body and puts a fresh adapter on it, drawn from `seed` apart from the global random state.

    Args:
        model (`PreTrainedModel`): changed in place; the adapter's layers are put into it.
        config (`LoraConfig`): see `build_lora_config`.
        seed (`int`): of the adapter. It starts as a no-op: the outputs are the model's own.
    """
    with own_random_state(seed), _without_peft_deprecations():
        return get_peft_model(model, config)


def save_adapter(
    model: PeftModel, directory: str | Path, label_names: Sequence[str], *, base_model: str | Path | None = None
) -> None:
    """Writes the adapter with the head and its labels, whole or not at all.

    Args:
        model (`PeftModel`): a classifier with an adapter.
        directory (`str | Path`): replaced as a whole. No `config.json` goes there (see above), and none may be added.
        label_names (`Sequence[str]`): in the order of the class numbers.
        base_model (`str | Path`, *optional*): folder or Hub id whose body the adapter was trained on. Default: what
            the model was loaded from. Where the body changed since (a pretext stage), give the folder where the
            changed one is kept.

    Raises:
        ModelError: if there are not as many names as labels.
    """
    labels = label_map(model, label_names, base_model=base_model)
    with atomic_directory(directory) as temporary:
        # "auto" would ask the Hub for the base model's vocabulary size; the embeddings are frozen in any case.
        model.save_pretrained(str(temporary), save_embedding_layers=False)
        (temporary / "README.md").unlink()  # peft's card is a form that no one filled in
        write_json(temporary / LABELS_FILE, labels)


def label_map(model: PeftModel, label_names: Sequence[str], *, base_model: str | Path | None = None) -> dict[str, Any]:
    """The content of `hfssl_labels.json`; peft's own file will name the same base model.

    Args:
        model (`PeftModel`): a classifier with an adapter, its weights whole on this process.
        label_names (`Sequence[str]`): in the order of the class numbers.
        base_model (`str | Path`, *optional*): see `save_adapter`.

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
        base_model = str(Path(base_model).resolve())  # the adapter may be loaded from another working directory
    config = model.peft_config[model.active_adapter]  # pyright: ignore[reportArgumentType]
    config.base_model_name_or_path = base_model
    # peft adds the usual heads' names once more each time that an adapter is put on or loaded.
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
    """Loads what `save_adapter` wrote, on its base model and with its label names.

    Args:
        directory (`str | Path`): the adapter's folder.
        base (`str | Path`, *optional*): folder or Hub id of the base model, where it is no longer at the place that
            was saved.
        trainable (`bool`, defaults to `False`): whether the adapter and the head get gradients.
        trust_remote_code (`bool`, defaults to `False`): whether code that comes with the base model may run.

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
        seed=0,  # of a head that the adapter's own replaces
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
    """A copy to train on: all of a full model, and of an adapter what an adapter trains."""
    fresh = deepcopy(model)
    if not isinstance(fresh, PeftModel):
        return fresh.requires_grad_(True)
    fresh.set_adapter(fresh.active_adapter)  # pyright: ignore[reportArgumentType]
    for config in fresh.peft_config.values():
        config.inference_mode = False
    return fresh


def merge(model: PeftModel) -> PreTrainedModel:
    """Adds the adapter's update to the body's weights: a plain transformers model with all parameters trainable again.

    Args:
        model (`PeftModel`): used up; its layers become those of the result.

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
    """The encoder's name within the model, and the last parts of its linear layers' names but for the pooler's."""
    body = model.base_model
    prefix = next(name for name, module in model.named_modules() if module is body)
    names = [
        name.split(".")
        for name, module in body.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith("pooler.")
    ]
    return prefix, list(dict.fromkeys(parts[-1] for parts in names))


def _head_with_pooler(model: PreTrainedModel) -> list[str]:
    """The pooler belongs to the head here: checkpoints often lack it, and then it is as random as the head."""
    body = model.base_model
    names = [name for name, child in model.named_children() if child is not body and list(child.parameters())]
    if isinstance(model, MeanPooledForSequenceClassification):
        return names
    return names + [f"{model.base_model_prefix}.{name}" for name, _ in body.named_children() if name == "pooler"]


def _language_head(model: PreTrainedModel) -> list[str]:
    """The head's layers with weights of their own; copying the decoder would cut its tie to the embeddings."""
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
    """BLAKE2b of the frozen body's weights, the same with and without an adapter on it."""
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(model.base_model.named_parameters()):
        if not {"lora_A", "lora_B", "pooler"} & set(name.split(".")):
            digest.update(name.replace(".base_layer.", ".").encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]
    return digest.hexdigest()


@contextmanager
def _without_peft_deprecations() -> Iterator[None]:
    """peft 0.21 asks transformers 5.23 for a property by its old name; nothing that our user could change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield
