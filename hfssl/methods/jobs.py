"""Input and output of a method that one trainer alone cannot train: `TrainingJob` and `TrainedModels`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from peft import PeftConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.training.config import SSLConfig

__all__ = ["TrainedModels", "TrainingJob"]


@dataclass(frozen=True)
class TrainingJob:
    """Describes one run of one method: the argument of `Method.driver`.

    Args:
        make_model (`Callable[[int], PreTrainedModel]`): Function that returns a fresh classifier for a random seed.
        make_peft_config (`Callable[[PreTrainedModel], PeftConfig | None]`): Function that returns the adapter settings
            for a model; `None` trains the full model.
        args (`SSLConfig`): Training arguments; `args.output_dir` is the folder of the run.
        processing_class (`PreTrainedTokenizerBase`): The tokenizer.
        label_names (`list[str]`): Names of the K classes, in the order of the class numbers.
        tokens (`Mapping[str, Dataset]`): Split name (`"labeled"`, `"unlabeled"`, `"validation"`, ...) -> tokenized
            rows. Rows of `"unlabeled"` have a `hidden_label`: the class number, or -1 where it is not known.
    """

    make_model: Callable[[int], PreTrainedModel]
    make_peft_config: Callable[[PreTrainedModel], PeftConfig | None]
    args: SSLConfig
    processing_class: PreTrainedTokenizerBase
    label_names: list[str]
    tokens: Mapping[str, Dataset]


@dataclass(frozen=True)
class TrainedModels:
    """Holds the result of a driver.

    Args:
        model (`PreTrainedModel`): The classifier that is saved and measured.
        more_models (`Mapping[str, PreTrainedModel]`, defaults to `{}`): Name -> another model that is measured, under
            this name in `results.json`.
        results (`Mapping[str, Any]`, defaults to `{}`): More entries of `results.json`, as plain JSON values.
    """

    model: PreTrainedModel
    more_models: Mapping[str, PreTrainedModel] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
