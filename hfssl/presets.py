"""What `--preset` means: the settings of each stage, the same for every data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """Settings of one run of `fit`.

    Attributes:
        supervised: Fields of `SupervisedConfig` for the labels-only model, and for every student unless
            `self_training` says otherwise.
        pretext: Fields of `MaskedSpanConfig`, or `None` for no pretext stage by default.
        self_training: Fields of `SelfTrainingConfig`; `rounds=0` for none.
    """

    supervised: dict[str, Any] = field(default_factory=dict)
    pretext: dict[str, Any] | None = None
    self_training: dict[str, Any] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {
    "quick": Preset(
        supervised={"max_steps": 150},
        self_training={"max_steps": 150, "rounds": 1, "mc_passes": 4},
    ),
    "standard": Preset(
        supervised={"max_steps": 200},
        pretext={"max_steps": 300},
        self_training={"max_steps": 300, "rounds": 2, "mc_passes": 10},
    ),
    "thorough": Preset(
        supervised={"max_steps": 400},
        pretext={"max_steps": 2000},
        self_training={"max_steps": 1000, "rounds": 5, "mc_passes": 30},
    ),
}

# The pretext stage is on request where a preset names none.
PRETEXT_ON_REQUEST: dict[str, Any] = {"max_steps": 300}
