"""What tables, reports and cards say of a kind of prediction: `results.json` holds it as `task`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["CLASSIFICATION_METRICS", "Metric", "TaskFacts", "task_facts"]


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation, as tables and model cards show it.

    Attributes:
        name: Its key in `Task.evaluate`.
        title: Its column in tables.
        long_name: Its name in the metadata of a model card, and in text; the title where it is empty.
        hub_type: Its `metric_type` in the metadata of a model card; empty leaves it out there.
        on_hub: Whether the Hub has a metric of that type.
        in_points: Whether it lies in [0, 1] and is shown as points (0-100).
        in_tables: Whether the short tables (closing table, stages of the report) show it.
        note: What the title stands for, where that is not plain: "ECE is the calibration error".
        share_of_rows: Whether it is the share of rows that are right, for which there is a 95% interval.

    Example:
        >>> Metric("mae", "MAE", in_points=False).shown(0.25)
        '0.250'
    """

    name: str
    title: str
    long_name: str = ""
    hub_type: str = ""
    on_hub: bool = False
    in_points: bool = True
    in_tables: bool = True
    note: str = ""
    share_of_rows: bool = False

    @property
    def column(self) -> str:
        """Header of a column of numbers without units: `"accuracy, %"`."""
        return f"{self.title}, %" if self.in_points else self.title

    def shown(self, value: float | None, missing: str = "-") -> str:
        """The value in words: points with one digit, or the number with three."""
        if value is None:
            return missing
        return f"{100 * value:.1f}" if self.in_points else f"{value:.3f}"

    def with_unit(self, value: float | None) -> str:
        """The value in a sentence: `"90.0%"`."""
        return self.shown(value, "–") + "%" * self.in_points

    def interval(self, value: float | None, rows: int) -> tuple[float, float] | None:
        """95% interval of a share of so many rows; `None` where there is none."""
        from hfssl.metrics.significance import accuracy_interval  # numpy is not needed for `--help` and closing table

        return accuracy_interval(value, rows) if self.share_of_rows and rows and value is not None else None


CLASSIFICATION_METRICS = (
    Metric("accuracy", "accuracy", "Accuracy", "accuracy", on_hub=True, share_of_rows=True),
    Metric("macro_f1", "macro-F1", "Macro F1", "f1", on_hub=True),
    Metric("nll", "NLL", "Negative log-likelihood (nats)", "nll", in_points=False, in_tables=False),
    Metric("ece", "ECE", "Expected calibration error", "ece", note="ECE is the calibration error"),
)


@dataclass(frozen=True)
class TaskFacts:
    """A kind of prediction in words and numbers; the defaults are one label per text.

    Attributes:
        name: Key in `hfssl.config.tasks.TASKS`.
        title: What is predicted: "one label per text".
        pipeline_tag: The Hub's name of the kind of model.
        auto_class: The transformers class that loads its models.
        decision_metric: Name of the metric, higher is better, that figures and the first lines show.
        metrics: In the order of tables.
        model_title: What a model does, with `{classes}` for their number.
        limit: What such a model cannot do, with `{classes}`.
    """

    name: str = "sequence_classification"
    title: str = "one label per text"
    pipeline_tag: str = "text-classification"
    auto_class: str = "AutoModelForSequenceClassification"
    decision_metric: str = "accuracy"
    metrics: tuple[Metric, ...] = CLASSIFICATION_METRICS
    model_title: str = "text classification with {classes} classes"
    limit: str = "It always answers with one of its {classes} classes, also for texts that belong to none of them."

    @property
    def decision(self) -> Metric:
        """The decision metric."""
        return next(metric for metric in self.metrics if metric.name == self.decision_metric)

    @property
    def tabled(self) -> list[Metric]:
        """The metrics of short tables, the decision metric first."""
        return [self.decision] + [m for m in self.metrics if m.in_tables and m.name != self.decision_metric]

    def as_dict(self) -> dict[str, Any]:
        """Returns JSON values for `results.json`."""
        return asdict(self) | {"metrics": [asdict(metric) for metric in self.metrics]}


def task_facts(results: Mapping[str, Any]) -> TaskFacts:
    """Returns what `results.json` says of its task; one label per text where it says nothing."""
    found = results.get("task")
    if found is None:
        return TaskFacts()
    return TaskFacts(**{**found, "metrics": tuple(Metric(**metric) for metric in found["metrics"])})
