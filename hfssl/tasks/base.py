"""`Task`: everything that depends on the kind of prediction, in one object without state.

Formulas elsewhere (uncertainty, weights, selection, temperature, verdict) work on units: `[M, K]` predictions, each
with the number of its row. Only the task defines its units, their scores and their losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from datasets import Dataset
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from hfssl.data.label_column import LabelColumn
from hfssl.errors import ConfigurationError
from hfssl.reporting.task_facts import Metric, TaskFacts

__all__ = ["Metric", "Task", "Units"]

Array = TypeVar("Array", np.ndarray, torch.Tensor)
Weights = tuple[Any, Any]
HeadFit = Callable[[torch.Tensor, torch.Tensor, int], Weights]
SoftHeadFit = Callable[[np.ndarray, np.ndarray, np.ndarray], Weights]


@dataclass(frozen=True)
class Units:
    """Holds the predictions in a batch of logits.

    Attributes:
        logits (`torch.Tensor`): Logits of the units, `[M, K]`.
        rows (`torch.Tensor`): Row of the batch that each unit belongs to, `[M]`.
    """

    logits: torch.Tensor
    rows: torch.Tensor


class Task:
    """Defines a kind of prediction. Subclasses implement the methods that differ; an instance has no state.

    Class attributes:
        name (`str`): Key in `hfssl.config.tasks.TASKS`.
        title (`str`): Kind of prediction in words: "one label per text".
        auto_class (`str`): Name of the transformers class that loads the models.
        problem_type (`str`, *optional*): Value of `model.config.problem_type`, which selects transformers' own loss in
            evaluations; `None` uses the default of transformers.
        pipeline_tag (`str`): The Hub's name of the kind of model.
        peft_task (`str`): Peft's `task_type`.
        metrics (`tuple[Metric, ...]`): Metrics that `evaluate` returns, in the order of tables
            (`hfssl.reporting.task_facts.Metric`).
        model_title (`str`): Description of a model for its card, with `{classes}` for the number of classes. Default:
            that of `TaskFacts`.
        limit (`str`): Limit of such a model, for its card. Default: that of `TaskFacts`.
        prediction_columns (`Mapping[str, type]`): Columns of a table of predictions: name -> `str` or `float`.
        decision_metric (`str`, defaults to `"accuracy"`): Metric, higher is better, whose gain the verdict and the
            reports state.
        label_column (`LabelColumn`): Format of labels in a column of a table.
        row_vectors (`bool`, defaults to `True`): Whether one embedding represents a row, as the contrastive stage and
            embedding signals require.
        class_per_row (`bool`, defaults to `True`): Whether a label is one class number per row, as embedding signals
            and probes require.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    auto_class: ClassVar[str]
    problem_type: ClassVar[str | None] = None
    pipeline_tag: ClassVar[str]
    peft_task: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    prediction_columns: ClassVar[Mapping[str, type]]
    decision_metric: ClassVar[str] = "accuracy"
    model_title: ClassVar[str] = ""
    limit: ClassVar[str] = ""
    label_column: ClassVar[LabelColumn] = LabelColumn()
    row_vectors: ClassVar[bool] = True
    class_per_row: ClassVar[bool] = True

    def facts(self) -> TaskFacts:
        """Returns facts about the task for tables, reports, cards and `results.json`."""
        words = {"model_title": self.model_title, "limit": self.limit}
        return TaskFacts(
            name=self.name,
            title=self.title,
            pipeline_tag=self.pipeline_tag,
            auto_class=self.auto_class,
            decision_metric=self.decision_metric,
            metrics=self.metrics,
            **{name: text for name, text in words.items() if text},
        )

    def model_options(self) -> dict[str, Any]:
        """Returns the keyword arguments of `hfssl.load_classifier` for a model of this task."""
        return {"auto_class": self.auto_class, "problem_type": self.problem_type, "task": self.name}

    # --- rows --------------------------------------------------------------------------------------------------------

    def encode(self, rows: Dataset, processor: PreTrainedTokenizerBase, max_length: int) -> Dataset:
        """Returns rows in the format of the model: the processor's columns, and `labels` from a column `label`.

        Other columns stay, `hidden_label` among them; encoded rows are returned unchanged.

        Args:
            rows (`Dataset`): Raw or encoded rows.
            processor (`PreTrainedTokenizerBase`): The tokenizer.
            max_length (`int`): Largest number of tokens of a row.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define encode().")  # abstract

    def label_array(self, rows: Dataset, column: str = "labels") -> np.ndarray:
        """Returns the labels of N encoded rows, in the format of `right`, `evaluate` and `nll`."""
        raise NotImplementedError(f"{type(self).__name__} does not define label_array().")  # abstract

    def strata(self, labels: Sequence[Any]) -> np.ndarray:
        """Returns the stratum of each row for splits and folds, `[N]` int64; -1 for an unlabeled row."""
        return self.label_column.strata(labels)

    # --- predictions -------------------------------------------------------------------------------------------------

    def units(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> Units:
        """Returns the predictions in a model's logits for a batch."""
        raise NotImplementedError(f"{type(self).__name__} does not define units().")  # abstract

    def probs(self, logits: Array) -> Array:
        """Returns probabilities `[..., K]` for logits `[..., K]`, as an array or a tensor like the argument."""
        raise NotImplementedError(f"{type(self).__name__} does not define probs().")  # abstract

    def predicted(self, probs: np.ndarray) -> np.ndarray:
        """Returns the decision on each row, `[...]`, for probabilities of `probs`, `[..., K]`."""
        raise NotImplementedError(f"{type(self).__name__} does not define predicted().")  # abstract

    def right(self, probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns whether each decision equals the label, `[M]` bool; paired tests compare these."""
        return self.predicted(probs) == np.asarray(labels)

    def describe(self, probs: np.ndarray, label_names: Sequence[str]) -> list[tuple[Any, ...]]:
        """Returns the cells of a table of predictions: for each row a tuple with the `prediction_columns`."""
        raise NotImplementedError(f"{type(self).__name__} does not define describe().")  # abstract

    # --- a pool, unit by unit ----------------------------------------------------------------------------------------
    # Here a unit is a row with one of K classes. A task with several units per row (a label, yes or no, for each of L
    # labels) overrides these; units are numbered row by row.

    def units_per_row(self, num_outputs: int) -> int:
        """Returns the number of units per row, P, of a model with that number of outputs per row."""
        return 1

    def unit_probs(self, logits: Array) -> Array:
        """Returns the probabilities of units, `[..., N * P, K]`, for the outputs for N rows, `[..., N, outputs]`."""
        return self.probs(logits)

    def unit_predicted(self, unit_probs: np.ndarray) -> np.ndarray:
        """Returns the predicted class of each unit, `[..., M]` int64, for probabilities `[..., M, K]`."""
        return self.predicted(unit_probs)

    def unit_labels(self, labels: np.ndarray) -> np.ndarray:
        """Returns the class of each unit, `[N * P]` int64, -1 where it is not known, for labels of `label_array`."""
        return labels

    def unit_classes(self, label_names: Sequence[str]) -> list[str]:
        """Returns the names of the K classes of a unit."""
        return list(label_names)

    def unit_rows(self, num_rows: int, num_outputs: int) -> np.ndarray:
        """Returns the number of the row that each unit belongs to, `[N * P]`."""
        return np.repeat(np.arange(num_rows), self.units_per_row(num_outputs))

    def count_pseudo_labels(
        self, units: np.ndarray, predicted: np.ndarray, label_names: Sequence[str]
    ) -> dict[str, int]:
        """Returns label name -> number of the selected units that have it as their pseudo-label."""
        counts = np.bincount(predicted[units], minlength=len(label_names))
        return dict(zip(label_names, counts.tolist(), strict=True))

    def pseudo_labeled(
        self, pool: Dataset, units: np.ndarray, target_probs: np.ndarray, weights: np.ndarray, units_per_row: int = 1
    ) -> Dataset:
        """Returns the pool's rows with selected units, with the columns `pseudo_probs` and `weight` for `loss`.

        Args:
            pool (`Dataset`): N encoded rows.
            units (`np.ndarray`): Numbers of the selected units, ascending, `[S]`.
            target_probs (`np.ndarray`): Targets of the selected units, `[S, K]`.
            weights (`np.ndarray`): Weights of the selected units, `[S]`.
            units_per_row (`int`, defaults to 1): Number P of units per row.
        """
        selected = pool.select(units).add_column("pseudo_probs", target_probs.tolist())
        return selected.add_column("weight", weights.tolist())

    # --- training ----------------------------------------------------------------------------------------------------

    def targets(self, labels: np.ndarray, num_classes: int) -> torch.Tensor:
        """Returns labels as hard targets of `loss`.

        Args:
            labels (`np.ndarray`): Labels, in the format of `label_array`.
            num_classes (`int`): Number K of classes.

        Raises:
            ValueError: A label is missing or not one of the classes.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define targets().")  # abstract

    def loss(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> torch.Tensor:
        """Returns the mean (or sum) of the losses of units, a scalar in nats.

        Args:
            logits (`torch.Tensor`): Logits of the units, `[M, K]`.
            targets (`torch.Tensor`): Labels of the batch in the format of the rows (hard), or probabilities `[M, K]`
                (soft). A batch of rows of `pseudo_labeled` has these, and the weights, row by row.
            weights (`torch.Tensor`, *optional*): Weights of the units, `[M]`, not negative; the mean is over all M
                units, not over the sum of the weights.
            label_smoothing (`float`, defaults to 0.0): Share of a hard target that is spread over all classes.
            reduction (`str`, defaults to `"mean"`): `"mean"`, or `"sum"` for the sum of the units' losses.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define loss().")  # abstract

    def soft_targets(self, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
        """Returns hard labels of a batch as one-hot targets of its units, `[M, K]` float, in the order of `units`.

        Args:
            labels (`torch.Tensor`): Labels of the batch, as `loss` takes them: a class number per unit.
            num_classes (`int`): Number K of classes of a unit.
        """
        return F.one_hot(labels.reshape(-1).long(), num_classes).float()

    def divergence(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Returns KL(p || q) + KL(q || p) of two predictions of the same units, logits `[M, K]`: mean in nats."""
        raise NotImplementedError(f"{type(self).__name__} does not define divergence().")  # abstract

    def alike(self, labels: torch.Tensor) -> torch.Tensor:
        """Returns the pairs of rows that the contrastive stage moves closer, `[B, B]` bool or weights in [0, 1]."""
        raise NotImplementedError(f"{type(self).__name__} does not define alike().")  # abstract

    def agreement(self, logits: torch.Tensor, target_probs: torch.Tensor) -> torch.Tensor:
        """Returns the share of units with equal decisions by logits `[M, K]` and probabilities `[M, K]`, for logs."""
        raise NotImplementedError(f"{type(self).__name__} does not define agreement().")  # abstract

    def head_weights(self, fit: HeadFit, inputs: torch.Tensor, labels: np.ndarray, num_outputs: int) -> Weights:
        """Returns weight `[outputs, D]` and bias `[outputs]` of a head fitted to the labels before training.

        Args:
            fit (`HeadFit`): Function from (inputs `[N, D]`, class numbers `[N]`, K) to weight `[K, D]` and bias `[K]`.
            inputs (`torch.Tensor`): Inputs of the head for each row, `[N, D]`.
            labels (`np.ndarray`): Labels of the rows, in the format of `label_array`.
            num_outputs (`int`): Number of outputs of the model.
        """
        return fit(inputs, torch.from_numpy(labels), num_outputs)

    def soft_head_weights(
        self, fit: SoftHeadFit, inputs: np.ndarray, labels: np.ndarray, pseudo_probs: np.ndarray, weights: np.ndarray
    ) -> Weights:
        """Returns weight and bias of a head that is fitted to labels and pseudo-labels after training.

        Args:
            fit (`SoftHeadFit`): Function from (inputs `[N, D]`, targets `[N, K]`, weights `[N]`) to weight `[K, D]`
                and bias `[K]`.
            inputs (`np.ndarray`): Inputs of the head for the labeled rows and then for those of `pseudo_labeled`, `[L
                + S, D]`.
            labels (`np.ndarray`): Labels of the L rows, in the format of `label_array`; each has weight 1.
            pseudo_probs (`np.ndarray`): Targets of the S rows, in the format of `pseudo_labeled`.
            weights (`np.ndarray`): Weights of the S rows, `[S]`.
        """
        known = np.eye(pseudo_probs.shape[1])[labels]
        return fit(inputs, np.concatenate([known, pseudo_probs]), np.append(np.ones(len(labels)), weights))

    # --- measuring ---------------------------------------------------------------------------------------------------

    def evaluate(self, probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Returns the results of an evaluation by name, those of `metrics` and others; shapes as in `right`."""
        raise NotImplementedError(f"{type(self).__name__} does not define evaluate().")  # abstract

    def nll(self, probs: np.ndarray, labels: np.ndarray) -> float:
        """Returns the mean negative log-likelihood of the labels in nats, which decides ties of the verdict."""
        raise NotImplementedError(f"{type(self).__name__} does not define nll().")  # abstract

    # --- operations that not every task has --------------------------------------------------------------------------

    def require_row_vectors(self, operation: str) -> None:
        """Checks that an operation that needs one embedding per row is possible.

        Args:
            operation (`str`): Name of the operation, for the error message.

        Raises:
            ConfigurationError: The task's predictions are not one per row.
        """
        if not self.row_vectors:
            raise ConfigurationError(
                f"{operation} needs one embedding per row, which the task '{self.name}' ({self.title}) does not have: "
                "leave it out, or use a task with one prediction per row."
            )

    def require_class_per_row(self, operation: str) -> None:
        """Checks that an operation that needs one class and one embedding per row is possible.

        Args:
            operation (`str`): Name of the operation, for the error message.

        Raises:
            ConfigurationError: The labels or the embeddings of the task are not one per row.
        """
        self.require_row_vectors(operation)
        if not self.class_per_row:
            raise ConfigurationError(
                f"{operation} needs one class per row, which the task '{self.name}' ({self.title}) does not have: "
                "leave it out, or use a task with one class per row."
            )

    def require_method(self, method: str, supported: Mapping[str, Sequence[str]]) -> None:
        """Checks that a method is defined for this task.

        Args:
            method (`str`): Name of the method.
            supported (`Mapping[str, Sequence[str]]`): Method -> names of the tasks that it supports.

        Raises:
            ConfigurationError: The method is not defined for this task; the message names those that are.
        """
        if self.name not in supported[method]:
            usable = [name for name, tasks in supported.items() if self.name in tasks]
            raise ConfigurationError(
                f"method: '{method}' is not defined for the task '{self.name}' ({self.title}); "
                f"expected one of {', '.join(usable) or 'none'}."
            )
