"""Training arguments that all consistency methods share."""

from __future__ import annotations

from dataclasses import dataclass, field

from hfssl.data.views.compose import view_problems
from hfssl.functional.schedules import RAMP_SHAPES
from hfssl.methods.supervised import SupervisedConfig

__all__ = ["ConsistencyConfig"]

STRONG_VIEW = "word_drop:0.1+token_cutoff:0.15"


@dataclass
class ConsistencyConfig(SupervisedConfig):
    """Holds the arguments that all consistency methods share.

    Example:
        >>> from hfssl.methods.consistency.config import ConsistencyConfig
        >>> ConsistencyConfig(output_dir=str(folder), strong_view="typos:0.05+word_drop").weak_view
        'dropout'
    """

    lambda_u: float = field(
        default=1.0, metadata={"help": "Weight of the unlabeled loss; 0 trains on the labels only."}
    )
    weak_view: str = field(
        default="dropout",
        metadata={
            "help": "View of an unlabeled row that targets are computed from, such as 'dropout', 'typos:0.02' or "
            "'column=text_weak'. `hfssl views` lists the steps and shows what they do."
        },
    )
    strong_view: str = field(
        default=STRONG_VIEW,
        metadata={
            "help": "View of an unlabeled row whose predictions learn the targets: steps with '+' between them, such "
            "as 'word_drop:0.1+token_cutoff:0.15' or 'column=text_strong'."
        },
    )
    ramp_up: float = field(
        default=0.0, metadata={"help": "Share of the steps over which the unlabeled weight grows from 0."}
    )
    ramp_shape: str = field(
        default="linear", metadata={"help": "Shape of the ramp of the weight: 'linear', 'cosine' or 'gaussian'."}
    )
    label_warmup: float = field(
        default=0.0,
        metadata={"help": "Share of the steps, at the start, that train on the labels only, before any ramp."},
    )
    curriculum: float = field(
        default=0.0,
        metadata={
            "help": "Share of the steps over which the smallest confidence that a target needs falls from 1 to that "
            "of chance: easy rows first. 0 turns it off."
        },
    )
    logit_adjustment: float = field(
        default=0.0,
        metadata={
            "help": "Factor tau on the log class prior of the labels that is added to logits in the losses (Menon et "
            "al. 2021), for labels of unequal classes. 0 turns it off, the paper uses 1."
        },
    )
    class_balance: float = field(
        default=0.0,
        metadata={
            "help": "Exponent on the relative share of the predicted class, a factor on its threshold: rare classes "
            "need less confidence. 0 turns it off, 1 is proportional."
        },
    )
    anchor_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the cross-entropy with soft pseudo-labels that the unlabeled rows bring in the columns "
            "pseudo_probs and weight, such as those of an ensemble. 0 turns it off."
        },
    )
    graph_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the squared distance between predictions of a row and of one of its nearest neighbours "
            "in the frozen encoder. 0 turns it off."
        },
    )
    graph_neighbors: int = field(
        default=5, metadata={"help": "Number of nearest neighbours that the graph term draws from."}
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value."""
        found = super().problems()
        for name in ("lambda_u", "logit_adjustment", "class_balance", "anchor_weight", "graph_weight"):
            if getattr(self, name) < 0:
                found.append(f"{name} must not be negative, got {getattr(self, name)}; 0 switches it off.")
        for name in ("ramp_up", "label_warmup", "curriculum"):
            if not 0 <= getattr(self, name) <= 1:
                found.append(f"{name} is a share of the steps from 0 to 1, got {getattr(self, name)}.")
        if self.ramp_shape not in RAMP_SHAPES:
            found.append(f"ramp_shape must be one of {', '.join(RAMP_SHAPES)}, got '{self.ramp_shape}'.")
        if self.graph_neighbors < 1:
            found.append(f"graph_neighbors must be at least 1, got {self.graph_neighbors}; set graph_weight=0.")
        for name in ("r_drop_alpha", "mixup_alpha"):
            if getattr(self, name) > 0:
                found.append(f"{name} is an option of supervised training; set it to 0, the views do its work here.")
        return found + view_problems("weak_view", self.weak_view) + view_problems("strong_view", self.strong_view)

    def unit_interval(self, *names: str) -> list[str]:
        """Returns a sentence for each of these settings that is outside [0, 1]."""
        return [
            f"{name} must be from 0 to 1, got {getattr(self, name)}."
            for name in names
            if not 0 <= getattr(self, name) <= 1
        ]
