"""What a user of Python adds to every trainer of a run: callbacks, metrics, adapter settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from peft import PeftConfig
from transformers import EvalPrediction, TrainerCallback

from hfssl.errors import ConfigurationError

__all__ = ["RunExtras", "run_extras"]


@dataclass(frozen=True)
class RunExtras:
    """Holds objects that no command line can spell.

    Args:
        callbacks (`Sequence[TrainerCallback]`, defaults to `()`): Callbacks of every trainer of the run.
        compute_metrics (`Callable[[EvalPrediction], dict]`, *optional*): Function from logits `[N, K]` and labels to
            numbers by name, which are added to the metrics of each stage.
        peft_config (`PeftConfig`, *optional*): Adapter settings for the classifiers, in place of the options of LoRA.

    Raises:
        ConfigurationError: for objects of other types; it lists all of them.
    """

    callbacks: Sequence[TrainerCallback] = ()
    compute_metrics: Callable[[EvalPrediction], dict[str, Any]] | None = None
    peft_config: PeftConfig | None = None

    def __post_init__(self):
        found = []
        if not isinstance(self.callbacks, list | tuple):
            found.append(f"callbacks: expected a list, got {self.callbacks!r}.")
        else:
            for callback in self.callbacks:
                kind = callback if isinstance(callback, type) else type(callback)
                if not issubclass(kind, TrainerCallback):
                    found.append(f"callbacks: expected objects of transformers.TrainerCallback, got {callback!r}.")
        if self.compute_metrics is not None and not callable(self.compute_metrics):
            found.append(f"compute_metrics: expected a function, got {self.compute_metrics!r}.")
        if self.peft_config is not None and not isinstance(self.peft_config, PeftConfig):
            found.append(f"peft_config: expected an object such as peft.LoraConfig, got {self.peft_config!r}.")
        if found:
            raise ConfigurationError(found)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Adds these objects to all trainers that are made within the block."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[RunExtras | None] = ContextVar("run_extras", default=None)


def run_extras() -> RunExtras:
    """Returns the objects of the run in progress."""
    return _current.get() or RunExtras()
