"""A trainer that prepares raw rows: those of its constructor, of `evaluate` and of `predict` in the same way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from transformers.trainer_utils import PredictionOutput

from hfssl.models.introspection import transformers_model
from hfssl.tasks.registry import get_task
from hfssl.training.checkpointing import CheckpointTrainer
from hfssl.training.config import SSLConfig
from hfssl.training.inputs import label_names_of_model, labeled_rows, plain_rows

__all__ = ["InputTrainer"]


class InputTrainer(CheckpointTrainer):
    """Extends `CheckpointTrainer` by rows of text: formats are taken off, labels made class numbers, texts tokenized.

    Class attributes:
        config_class (`type[SSLConfig]`): Class of the training arguments.
    """

    config_class: ClassVar[type[SSLConfig]] = SSLConfig

    def prepare_dataset(self, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, args: SSLConfig) -> Dataset:
        """Encodes a dataset of raw rows as the task does; subclasses whose views need more columns override this.

        Args:
            dataset (`Dataset`): Raw rows, or rows that are already tokenized.
            tokenizer (`PreTrainedTokenizerBase`): The tokenizer.
            args (`SSLConfig`): Training arguments.
        """
        return get_task(args.task).encode(dataset, tokenizer, args.max_length)

    def prepare_pool(self, rows: Dataset, label_names: Sequence[str], args: SSLConfig) -> Dataset:
        """Checks and completes the unlabeled rows; subclasses that read more columns of them override this.

        Args:
            rows (`Dataset`): Unlabeled rows, prepared.
            label_names (`Sequence[str]`): Names of the model's classes.
            args (`SSLConfig`): Training arguments.
        """
        return rows

    def _default_args(self, model: Any) -> SSLConfig:
        """Returns the default arguments, with a folder named after the model and the method."""
        name = os.fspath(model) if isinstance(model, str | os.PathLike) else transformers_model(model).name_or_path
        method = type(self).__name__.removesuffix("Trainer")
        return self.config_class(output_dir=f"{os.path.basename(os.path.normpath(name))}-{method}")

    def _prepared_rows(
        self,
        rows: Any,
        name: str,
        *,
        names: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        args: SSLConfig,
        optional: bool = False,
    ) -> Any:
        """Returns rows, or each data set of a dict, as the model reads them; `None` stays `None`."""
        if rows is None:
            return None
        if isinstance(rows, dict):
            return {
                key: self._prepared_rows(
                    part, f"{name}['{key}']", names=names, tokenizer=tokenizer, args=args, optional=optional
                )
                for key, part in rows.items()
            }
        rows = plain_rows(rows, name)
        if names:
            rows = labeled_rows(rows, names, name, get_task(args.task), optional=optional)
        return self.prepare_dataset(rows, tokenizer, args)

    def prepare_evaluation(self, rows: Any, name: str = "eval_dataset", *, optional: bool = False) -> Any:
        """Returns raw rows as the constructor prepares those of `eval_dataset`; prepared ones unchanged.

        Args:
            rows (`Any`): A data set, a dict of them, the name of one of `eval_dataset`'s, or `None`.
            name (`str`, defaults to `"eval_dataset"`): Name of the argument, for messages.
            optional (`bool`, defaults to `False`): Whether rows may lack a label.
        """
        if rows is None or isinstance(rows, str):
            return rows
        names = [] if self.objective.product == "masked_lm" else label_names_of_model(self.model)
        return self._prepared_rows(
            rows, name, names=names, tokenizer=self.processing_class, args=self.args, optional=optional
        )

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Returns metrics of raw or prepared rows, or of each data set of a dict.

        Args:
            eval_dataset (`Any`, *optional*): A `Dataset`, a dict of them, or the name of one that the constructor got.
                Default: the constructor's.
            ignore_keys (`list[str]`, *optional*): Outputs of the model to ignore.
            metric_key_prefix (`str`, defaults to `"eval"`): Start of the names of the metrics.

        Raises:
            DataError: Labels are missing, or none of the model's classes.
        """
        return super().evaluate(self.prepare_evaluation(eval_dataset), ignore_keys, metric_key_prefix)

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Returns logits of raw or prepared rows, with metrics where all rows have a label.

        Args:
            test_dataset (`Any`): A `Dataset`.
            ignore_keys (`list[str]`, *optional*): Outputs of the model to ignore.
            metric_key_prefix (`str`, defaults to `"test"`): Start of the names of the metrics.

        Raises:
            DataError: A label is none of the model's classes.
        """
        rows = self.prepare_evaluation(test_dataset, "test_dataset", optional=True)
        return super().predict(rows, ignore_keys, metric_key_prefix)
