"""Defines the words and metrics of a kind of prediction for tables, reports and cards (`task` in `results.json`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hfssl.metrics.significance import accuracy_interval

__all__ = ["CLASSIFICATION_METRICS", "Metric", "TaskFacts", "task_facts"]


@dataclass(frozen=True)
class Metric:
    """Describes a metric for tables and model cards.

    Args:
        name (`str`): Key of the metric in `Task.evaluate`.
        title (`str`): Title of its column in tables.
        long_name (`str`, defaults to `""`): Name in the metadata of a model card, and in text; the title if empty.
        hub_type (`str`, defaults to `""`): `metric_type` in the metadata of a model card; if empty, the metadata does
            not contain the metric.
        on_hub (`bool`, defaults to `False`): Whether the Hub has a metric of that type.
        in_points (`bool`, defaults to `True`): Whether the metric lies in [0, 1] and is shown as points (0-100).
        in_tables (`bool`, defaults to `True`): Whether the short tables (closing table, stages of the report) contain
            the metric.
        note (`str`, defaults to `""`): Explanation of a title that needs one: "ECE is the calibration error".
        share_of_rows (`bool`, defaults to `False`): Whether the metric is the share of correct rows, for which there
            is a 95% interval.

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
        """Returns the header of a column of numbers without units: `"accuracy, %"`."""
        return f"{self.title}, %" if self.in_points else self.title

    def shown(self, value: float | None, missing: str = "-") -> str:
        """Formats a value: points with one digit, or the number with three."""
        if value is None:
            return missing
        return f"{100 * value:.1f}" if self.in_points else f"{value:.3f}"

    def with_unit(self, value: float | None) -> str:
        """Formats a value for a sentence: `"90.0%"`."""
        return self.shown(value, "–") + "%" * self.in_points

    def interval(self, value: float | None, rows: int) -> tuple[float, float] | None:
        """Returns the 95% interval of a share of `rows` rows; `None` for other metrics."""
        return accuracy_interval(value, rows) if self.share_of_rows and rows and value is not None else None


CLASSIFICATION_METRICS = (
    Metric("accuracy", "accuracy", "Accuracy", "accuracy", on_hub=True, share_of_rows=True),
    Metric("macro_f1", "macro-F1", "Macro F1", "f1", on_hub=True),
    Metric("nll", "NLL", "Negative log-likelihood (nats)", "nll", in_points=False, in_tables=False),
    Metric("ece", "ECE", "Expected calibration error", "ece", note="ECE is the calibration error"),
)


@dataclass(frozen=True)
class TaskFacts:
    """Describes a kind of prediction for reports; the defaults are for one label per text.

    Args:
        name (`str`, defaults to `"sequence_classification"`): Key in `hfssl.config.tasks.TASKS`.
        title (`str`, defaults to `"one label per text"`): Name of the prediction in text.
        pipeline_tag (`str`, defaults to `"text-classification"`): Kind of model on the Hub.
        auto_class (`str`, defaults to `"AutoModelForSequenceClassification"`): Name of the transformers class that
            loads its models.
        decision_metric (`str`, defaults to `"accuracy"`): Name of the metric (higher is better) in figures and first
            lines.
        metrics (`tuple[Metric, ...]`, defaults to `CLASSIFICATION_METRICS`): Metrics in the order of tables.
        model_title (`str`, defaults to `"text classification with {classes} classes"`): Purpose of a model, with
            `{classes}` for the number of classes.
        limit (`str`, defaults to a sentence on texts of no class): Limit of such a model, with `{classes}` for the
            number of classes.
    """

    name: str = "sequence_classification"
    title: str = "one label per text"
    pipeline_tag: str = "text-classification"
    auto_class: str = "AutoModelForSequenceClassification"
    decision_metric: str = "accuracy"
    metrics: tuple[Metric, ...] = CLASSIFICATION_METRICS
    model_title: str = "text classification with {classes} classes"
    limit: str = "It always predicts one of its {classes} classes, also for texts that belong to none of them."

    @property
    def decision(self) -> Metric:
        """Returns the decision metric."""
        return next(metric for metric in self.metrics if metric.name == self.decision_metric)

    @property
    def tabled(self) -> list[Metric]:
        """Returns the metrics of short tables, the decision metric first."""
        return [self.decision] + [m for m in self.metrics if m.in_tables and m.name != self.decision_metric]

    def as_dict(self) -> dict[str, Any]:
        """Returns JSON values for `results.json`."""
        return asdict(self) | {"metrics": [asdict(metric) for metric in self.metrics]}


def task_facts(results: Mapping[str, Any]) -> TaskFacts:
    """Returns the task facts in `results.json`; without any, those of one label per text."""
    found = results.get("task")
    if found is None:
        return TaskFacts()
    return TaskFacts(**{**found, "metrics": tuple(Metric(**metric) for metric in found["metrics"])})
