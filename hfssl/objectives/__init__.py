"""The methods. Adding one: a file here, a line in `OBJECTIVES`, a recipe and a test file."""

from __future__ import annotations

from hfssl.objectives.base import Objective
from hfssl.objectives.contrastive import SupervisedContrastiveObjective
from hfssl.objectives.masked_span import MaskedSpanObjective
from hfssl.objectives.self_training import SelfTrainingObjective
from hfssl.objectives.supervised import SupervisedObjective

__all__ = [
    "OBJECTIVES",
    "MaskedSpanObjective",
    "Objective",
    "SelfTrainingObjective",
    "SupervisedContrastiveObjective",
    "SupervisedObjective",
]

OBJECTIVES: dict[str, type[Objective]] = {
    "supervised": SupervisedObjective,
    "masked_span": MaskedSpanObjective,
    "self_training": SelfTrainingObjective,
    "contrastive": SupervisedContrastiveObjective,
}
