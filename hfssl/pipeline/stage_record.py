"""`StageRecord`: content of a finished stage's marker file; `Trained`: a model that is not measured yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from transformers import PreTrainedModel

__all__ = ["StageRecord", "Trained"]


@dataclass(frozen=True)
class StageRecord:
    """Holds the report of a stage; the marker file of its folder holds the same as JSON.

    Args:
        metrics (`dict`, *optional*): Held-out part -> metrics of the model, or `None` for a part that is empty or was
            trained on; `None` for a stage that makes no classifier.
        manifests (`list[dict]`): One `training_manifest` for each set of rows that the stage trained on.
        config (`dict`): Method -> its settings, for the report and the model card.
        curves (`list[dict]`): Training log, entries with `step` and `loss` or `eval_loss`.
        rounds (`list[dict]`): Records of the rounds, for a stage that trains in rounds.
        alarms (`list[str]`): Sentences against the stage's model; with an alarm the verdict selects labels only.
        notes (`list[str]`): Sentences for the verdict's reasons.
        seconds (`float`): Duration of the last attempt in seconds; the runner sets it.
        attempts (`int`): Number of times that the stage was started; the runner sets it.

    Example:
        >>> record = StageRecord(config={"supervised": {"max_steps": 10}})
        >>> StageRecord.from_dict(record.as_dict()) == record
        True
    """

    metrics: dict[str, dict[str, float] | None] | None = None
    manifests: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    curves: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    attempts: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Returns the record as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StageRecord:
        """Returns the record from the values of `as_dict`."""
        return cls(**values)

    def including(self, earlier: StageRecord) -> StageRecord:
        """Returns this record with the time and the settings of a stage that it builds on."""
        return replace(self, seconds=self.seconds + earlier.seconds, config={**earlier.config, **self.config})


@dataclass(frozen=True, eq=False)
class Trained:
    """Holds a trained model before it is measured.

    Args:
        model (`PreTrainedModel`): The classifier.
        config (`dict`): As in `StageRecord`.
        curves (`list[dict]`): As in `StageRecord`.
        manifests (`list[dict]`): As in `StageRecord`; in a refit without those of the labeled rows.
    """

    model: PreTrainedModel
    config: dict[str, Any] = field(default_factory=dict)
    curves: list[dict[str, Any]] = field(default_factory=list)
    manifests: list[dict[str, Any]] = field(default_factory=list)
