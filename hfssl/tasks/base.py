"""`Task`: everything that depends on the kind of prediction, in one object without state.

Formulas elsewhere (uncertainty, weights, selection, temperature, verdict) work on units: `[M, K]` predictions, each
with the row that it belongs to. What a unit is, how it is scored and how it is trained is said here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hfssl.data.label_column import LabelColumn
from hfssl.errors import ConfigurationError
from hfssl.reporting.task_facts import Metric, TaskFacts

__all__ = ["Metric", "Task", "Units"]

Array = TypeVar("Array", np.ndarray, torch.Tensor)


@dataclass(frozen=True)
class Units:
    """The predictions in a batch of logits.

    Attributes:
        logits: `[M, K]`.
        rows: `[M]` row of the batch that each belongs to.
    """

    logits: torch.Tensor
    rows: torch.Tensor


class Task:
    """A kind of prediction. Subclasses fill in what differs; an instance has no state and may be shared.

    Class attributes:
        name: Its key in `hfssl.config.tasks.TASKS`.
        title: What is predicted, in words: "one label per text".
        auto_class: Name of the transformers class that loads its models.
        problem_type: What `model.config.problem_type` says, which decides transformers' own loss of evaluations;
            `None` leaves it to transformers.
        pipeline_tag: The Hub's name of the kind of model.
        peft_task: peft's `task_type`.
        metrics: What `evaluate` returns, in the order of tables (`hfssl.reporting.task_facts.Metric`).
        model_title: What a model does, for its card, with `{classes}` for their number. Empty: as `TaskFacts` has it.
        limit: What such a model cannot do, for its card. Empty: as `TaskFacts` has it.
        prediction_columns: Columns of a table of predictions: name -> `str` or `float`.
        decision_metric: The metric, higher is better, whose gain the verdict and the reports tell.
        label_column: How labels lie in a column of a table.
        row_vectors: Whether one embedding stands for a row: graphs, neighbours and probes need that.
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

    def facts(self) -> TaskFacts:
        """What tables, reports and cards say of the task; `results.json` keeps it."""
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
        """Keyword arguments of `hfssl.load_classifier` for a model of this task."""
        return {"auto_class": self.auto_class, "problem_type": self.problem_type, "task": self.name}

    # --- rows --------------------------------------------------------------------------------------------------------

    def encode(self, rows: Dataset, processor: PreTrainedTokenizerBase, max_length: int) -> Dataset:
        """Rows as the model takes them: the processor's columns, and `labels` from a column `label`.

        Other columns are kept, `hidden_label` among them; encoded rows are returned as they are.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define encode().")  # abstract

    def label_array(self, rows: Dataset, column: str = "labels") -> np.ndarray:
        """Labels of N encoded rows, as `right`, `evaluate` and `nll` take them."""
        raise NotImplementedError(f"{type(self).__name__} does not define label_array().")  # abstract

    def strata(self, labels: Sequence[Any]) -> np.ndarray:
        """`[N]` int64 stratum of each row for splits and folds; -1 for an unlabeled row."""
        return self.label_column.strata(labels)

    # --- predictions -------------------------------------------------------------------------------------------------

    def units(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> Units:
        """The predictions in a model's logits for a batch."""
        raise NotImplementedError(f"{type(self).__name__} does not define units().")  # abstract

    def probs(self, logits: Array) -> Array:
        """Probabilities `[..., K]` from logits `[..., K]`; an array gives an array, a tensor a tensor."""
        raise NotImplementedError(f"{type(self).__name__} does not define probs().")  # abstract

    def predicted(self, probs: np.ndarray) -> np.ndarray:
        """The decision on each row, `[...]`, from what `probs` returns, `[..., K]`."""
        raise NotImplementedError(f"{type(self).__name__} does not define predicted().")  # abstract

    def right(self, probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """`[M]` bool, whether each decision is the label; what paired tests compare."""
        return self.predicted(probs) == np.asarray(labels)

    def describe(self, probs: np.ndarray, label_names: Sequence[str]) -> list[tuple[Any, ...]]:
        """What a table of predictions says of each row: a tuple with a value for each of `prediction_columns`."""
        raise NotImplementedError(f"{type(self).__name__} does not define describe().")  # abstract

    # --- a pool, unit by unit ----------------------------------------------------------------------------------------
    # Here a unit is a row with one of K classes. A task with several units per row (a label, yes or no, for each of L
    # labels) overrides these; units are numbered row by row.

    def units_per_row(self, num_outputs: int) -> int:
        """Units of each row, P, of a model with that many outputs per row."""
        return 1

    def unit_probs(self, logits: Array) -> Array:
        """Probabilities of units, `[..., N * P, K]`, from the model's outputs for N rows, `[..., N, outputs]`."""
        return self.probs(logits)

    def unit_predicted(self, unit_probs: np.ndarray) -> np.ndarray:
        """`[..., M]` int64 class decided on for each unit, from `[..., M, K]`."""
        return self.predicted(unit_probs)

    def unit_labels(self, labels: np.ndarray) -> np.ndarray:
        """`[N * P]` int64 class of each unit, -1 where it is not known, from what `label_array` returns."""
        return labels

    def unit_classes(self, label_names: Sequence[str]) -> list[str]:
        """K names of the classes of a unit."""
        return list(label_names)

    def unit_rows(self, num_rows: int, num_outputs: int) -> np.ndarray:
        """`[N * P]` number of the row that each unit belongs to."""
        return np.repeat(np.arange(num_rows), self.units_per_row(num_outputs))

    def count_pseudo_labels(
        self, units: np.ndarray, predicted: np.ndarray, label_names: Sequence[str]
    ) -> dict[str, int]:
        """Label name -> how many of the selected units have it as their pseudo-label."""
        counts = np.bincount(predicted[units], minlength=len(label_names))
        return dict(zip(label_names, counts.tolist(), strict=True))

    def pseudo_labeled(
        self, pool: Dataset, units: np.ndarray, target_probs: np.ndarray, weights: np.ndarray, units_per_row: int = 1
    ) -> Dataset:
        """The rows of the pool with selected units; `loss` gets the columns `pseudo_probs` and `weight`.

        Args:
            pool: N encoded rows.
            units: `[S]` numbers of the selected units, ascending.
            target_probs: `[S, K]`.
            weights: `[S]`.
            units_per_row: P.
        """
        selected = pool.select(units).add_column("pseudo_probs", target_probs.tolist())
        return selected.add_column("weight", weights.tolist())

    # --- training ----------------------------------------------------------------------------------------------------

    def targets(self, labels: np.ndarray, num_classes: int) -> torch.Tensor:
        """Labels as hard targets of `loss`.

        Raises:
            ValueError: a label that is missing or not one of the classes.
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
        """Mean (or sum) of the losses of units, a scalar in nats.

        Args:
            logits: `[M, K]`.
            targets: Labels of the batch as the rows hold them (hard), or probabilities `[M, K]` (soft); a batch of
                what `pseudo_labeled` returns holds these, and the weights, row by row.
            weights: `[M]`, not negative; the mean is over all M units, not over the sum of the weights.
            label_smoothing: Share of a hard target that is spread over all classes.
            reduction: `"sum"` adds the units' losses up instead.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define loss().")  # abstract

    def divergence(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """KL(p || q) + KL(q || p) of two predictions of the same units, logits `[M, K]`: mean over units, in nats."""
        raise NotImplementedError(f"{type(self).__name__} does not define divergence().")  # abstract

    def alike(self, labels: torch.Tensor) -> torch.Tensor:
        """`[B, B]` bool or weights in [0, 1]: which rows the contrastive stage draws together, by their labels."""
        raise NotImplementedError(f"{type(self).__name__} does not define alike().")  # abstract

    def agreement(self, logits: torch.Tensor, target_probs: torch.Tensor) -> torch.Tensor:
        """Share of units whose decision by logits `[M, K]` is the one by probabilities `[M, K]`, for the log."""
        raise NotImplementedError(f"{type(self).__name__} does not define agreement().")  # abstract

    # --- measuring ---------------------------------------------------------------------------------------------------

    def evaluate(self, probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """The numbers of an evaluation by name, those of `metrics` and others; shapes as in `right`."""
        raise NotImplementedError(f"{type(self).__name__} does not define evaluate().")  # abstract

    def nll(self, probs: np.ndarray, labels: np.ndarray) -> float:
        """Mean negative log-likelihood of the labels in nats; it decides ties of the verdict."""
        raise NotImplementedError(f"{type(self).__name__} does not define nll().")  # abstract

    # --- what not every task can do ----------------------------------------------------------------------------------

    def require_row_vectors(self, operation: str) -> None:
        """Refuses an operation that needs one embedding per row.

        Raises:
            ConfigurationError: the task's predictions are not one per row.
        """
        if not self.row_vectors:
            raise ConfigurationError(
                f"{operation} needs one embedding per row, which the task '{self.name}' ({self.title}) does not have: "
                "leave it out, or use a task with one prediction per row."
            )

    def require_method(self, method: str, supported: Mapping[str, Sequence[str]]) -> None:
        """Refuses a method that is not defined for this task.

        Args:
            method: Its name.
            supported: Method -> names of the tasks that it supports.

        Raises:
            ConfigurationError: the method is not defined for this task; names those that are.
        """
        if self.name not in supported[method]:
            usable = [name for name, tasks in supported.items() if self.name in tasks]
            raise ConfigurationError(
                f"method: '{method}' is not defined for the task '{self.name}' ({self.title}); "
                f"expected one of {', '.join(usable) or 'none'}."
            )
