"""Training arguments of self-training: those of one student, and those of the rounds that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hfssl.config.tasks import TASKS
from hfssl.errors import ConfigurationError
from hfssl.functional.class_priors import DISTRIBUTION_ALIGNMENTS, given_prior
from hfssl.functional.selection import ACQUISITIONS, SELECTION_STRATEGIES
from hfssl.functional.weighting import WEIGHTINGS
from hfssl.methods.supervised import SupervisedConfig
from hfssl.tasks.base import Task
from hfssl.tasks.registry import get_task

__all__ = ["LABEL_SPREADING_MODES", "STUDENT_INITS", "SelfTrainingConfig"]

STUDENT_INITS = ("pretrained", "teacher")
LABEL_SPREADING_MODES = ("none", "agreement", "certainty", "labels")
CHOICES = {
    "student_init": STUDENT_INITS,
    "selection_strategy": tuple(SELECTION_STRATEGIES),
    "weighting": tuple(WEIGHTINGS),
    "distribution_alignment": DISTRIBUTION_ALIGNMENTS,
    "acquisition": tuple(ACQUISITIONS),
    "label_spreading": LABEL_SPREADING_MODES,
}


@dataclass
class SelfTrainingConfig(SupervisedConfig):
    """Holds the arguments of `SelfTrainingTrainer` (one student) and of `SelfTraining` (the rounds).

    Names follow Mukherjee & Awadallah (2020), "UST".

    Example:
        >>> from hfssl import SelfTrainingConfig
        >>> args = SelfTrainingConfig("rounds", rounds=3, selection_fraction=0.2, final_selection_fraction=0.6)
        >>> round(args.fraction_at(1), 3)
        0.4
    """

    lambda_u: float = field(
        default=1.0, metadata={"help": "Weight of the pseudo-labeled loss; 0 trains on the labels only. Default: 1."}
    )
    num_teachers: int = field(
        default=1,
        metadata={
            "help": "Number of models of different seeds whose predictions are averaged in round 1. Default: 1."
        },
    )
    model_soup: bool = field(
        default=False,
        metadata={
            "help": "Adds the mean of the weights of several first teachers as one more teacher, from which a student "
            "starts (with student_init='teacher'). Adapters are not averaged. Default: off."
        },
    )
    student_init: str = field(
        default="pretrained",
        metadata={
            "help": "Initial weights of a student: the 'pretrained' ones (UST, the default), or those of its first "
            "'teacher', which with weight_average_decay is the moving average of the previous student."
        },
    )
    retrain_head: bool = field(
        default=False,
        metadata={
            "help": "Fits a student's logit layer again after training, to labels and pseudo-labels, by logistic "
            "regression on its body (last-layer retraining). Default: off."
        },
    )
    rounds: int = field(
        default=2,
        metadata={"help": "Maximum number of rounds of teacher -> pseudo-labels -> student. Default: 2."},
    )
    mc_passes: int = field(
        default=10,
        metadata={
            "help": "Number of stochastic passes with dropout (T, in the paper 30); with 0, uncertainty is the "
            "disagreement of several teachers (deep ensembles). Default: 10."
        },
    )
    mc_top_layers: int | None = field(
        default=None,
        metadata={
            "help": "Number of upper layers with dropout; the layers below run once, for cheaper passes. Default: all "
            "layers, as in the paper."
        },
    )
    selection_fraction: float = field(
        default=0.5, metadata={"help": "Fraction of the pool that a round selects. Default: 0.5."}
    )
    final_selection_fraction: float | None = field(
        default=None,
        metadata={
            "help": "Fraction of the pool that the last round selects; the fraction grows evenly from round to round "
            "(a curriculum). Default: the fraction stays the same."
        },
    )
    acquisition: str = field(
        default="bald",
        metadata={
            "help": "Uncertainty by which selection_strategy 'easy' and 'hard' select: 'bald' (paper, the default), "
            "'entropy', 'variance' or 'margin'."
        },
    )
    selection_strategy: str = field(
        default="easy",
        metadata={
            "help": "How rows are selected for pseudo-labels: 'easy' (the default), 'hard', 'uniform', 'top_k', "
            "'threshold' or 'all'."
        },
    )
    confidence_threshold: float = field(
        default=0.95,
        metadata={
            "help": "Minimum confidence for selection_strategy='threshold' (FixMatch: 0.95, the default), at a "
            "temperature that is fitted on the held-out labels where there are any."
        },
    )
    weighting: str = field(
        default="log_variance",
        metadata={
            "help": "Weights of the selected rows: 'log_variance' (paper, the default), 'one_minus_entropy', "
            "'one_minus_bald', 'confidence' or 'uniform'."
        },
    )
    soft_targets: bool = field(
        default=False,
        metadata={"help": "Trains on the teacher's probabilities instead of its most probable class. Default: off."},
    )
    sharpen_temperature: float = field(
        default=1.0,
        metadata={
            "help": "Temperature of soft targets; below 1 they become more certain (MixMatch: 0.5). Default: 1."
        },
    )
    label_spreading: str = field(
        default="none",
        metadata={
            "help": "Use of labels spread over a nearest-neighbour graph of the backbone's embeddings: 'agreement' "
            "weights rows by their agreement with the graph, 'certainty' by the graph's certainty, 'labels' mixes the "
            "spread labels in; each in proportion to the trust in the graph. Default: 'none'."
        },
    )
    label_name_prior: bool = field(
        default=False,
        metadata={
            "help": "Changes the first pseudo-labels by the similarity of each text to the names of the classes in "
            "the backbone's embeddings, with a strength found by cross-validation on the labels. Default: off."
        },
    )
    teacher_probe: bool = field(
        default=False,
        metadata={
            "help": "Replaces the head of each first teacher by logistic regression on the means over its tokens. "
            "Most stock heads read the first token only, for which sentence encoders were not trained. Default: off."
        },
    )
    backbone_probe: bool = field(
        default=False,
        metadata={
            "help": "Mixes logistic regression on the embeddings of the untrained backbone into the first "
            "pseudo-labels; held-out labels determine its weight, which is 0.4 without them. Default: off."
        },
    )
    knn_smoothing: float = field(
        default=0.0,
        metadata={
            "help": "Weight of a row's nearest neighbours in the pool, by the backbone's embeddings, in its first "
            "pseudo-label. Default: 0."
        },
    )
    neighbor_votes: bool = field(
        default=False,
        metadata={
            "help": "Makes the mean prediction of a row's nearest neighbours in the pool, by the backbone's "
            "embeddings, a member of the first ensemble, with a weight that held-out labels decide. Default: off."
        },
    )
    ood_filter: bool = field(
        default=False,
        metadata={
            "help": "Gives rows out of distribution, that is, unlike all labeled ones, the weight 0 where the pool "
            "has many of them. Default: off."
        },
    )
    distribution_alignment: str = field(
        default="none",
        metadata={
            "help": "Class prior to which the teacher's probabilities of the pool are aligned: 'none' leaves them as "
            "they are (the default), 'predicted' takes that of its most probable classes (and of the labels, where "
            "classes are many), 'estimated' the one that the teachers agree on, 'labeled' that of the labels "
            "(ReMixMatch)."
        },
    )
    class_prior: str | None = field(
        default=None,
        metadata={
            "help": "Class prior of the pool where it is known, such as 'ham=0.9, spam=0.1', or a JSON file with it; "
            "pseudo-labels are aligned to it, whatever `distribution_alignment` is. Default: not known."
        },
    )
    stop_agreement: float = field(
        default=0.995,
        metadata={
            "help": "Fraction of the pool with the same label as in the previous round at which the rounds end. "
            "Default: 0.995."
        },
    )

    def problems(self) -> list[str]:
        """Returns one sentence for each wrong value, of this class and of the base class."""
        return [*super().problems(), *self._problems_of_training(), *self._problems_of_rounds()]

    def _problems_of_training(self) -> Iterator[str]:
        if self.lambda_u < 0:
            yield f"lambda_u must not be negative, got {self.lambda_u}."
        if self.lambda_u > 0 and (self.r_drop_alpha > 0 or self.mixup_alpha > 0):
            yield "r_drop_alpha and mixup_alpha are for teachers, not for students: leave them out here."
        if self.num_teachers < 1:
            yield f"num_teachers must be at least 1, got {self.num_teachers}."
        if self.model_soup and self.num_teachers == 1:
            yield "model_soup is the mean of several teachers: set num_teachers to 2 or more, or leave it out."
        if self.rounds < 1:
            yield f"rounds must be at least 1, got {self.rounds}."
        if self.mc_passes < 0:
            yield f"mc_passes must not be negative, got {self.mc_passes}."
        selects_by_passes = self.selection_strategy in ("easy", "hard") and self.acquisition in ("bald", "variance")
        needs_passes = selects_by_passes or self.weighting in ("log_variance", "one_minus_bald")
        if self.mc_passes == 0 and needs_passes and (self.num_teachers == 1 or self.rounds > 1):
            yield (
                "mc_passes=0 leaves a single teacher without the uncertainty that selection_strategy, acquisition or "
                "weighting need: give it passes, or take selection_strategy='all' and weighting='uniform'."
            )
        if self.mc_top_layers is not None and self.mc_top_layers < 1:
            yield f"mc_top_layers must be at least 1, got {self.mc_top_layers}; leave it out for all layers."

    def _problems_of_rounds(self) -> Iterator[str]:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                yield f"{name} must be one of {', '.join(known)}, got '{getattr(self, name)}'."
        for name in ("selection_fraction", "final_selection_fraction", "confidence_threshold", "stop_agreement"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                yield f"{name} must be above 0 and at most 1, got {value}."
        if self.task in TASKS:
            yield from self._problems_of_task(get_task(self.task))
        if not 0 <= self.knn_smoothing < 1:
            yield f"knn_smoothing must be at least 0 and below 1, got {self.knn_smoothing}."
        if not self.sharpen_temperature > 0:
            yield f"sharpen_temperature must be above 0, got {self.sharpen_temperature}; 1 changes nothing."

    def _problems_of_task(self, task: Task) -> Iterator[str]:
        names = ("label_name_prior", "backbone_probe", "teacher_probe", "neighbor_votes", "ood_filter")
        used = [name for name in names if getattr(self, name)]
        used += ["label_spreading"] * (self.label_spreading != "none") + ["knn_smoothing"] * (self.knn_smoothing > 0)
        for name in used:
            try:
                task.require_class_per_row(name)
            except ConfigurationError as error:
                yield str(error)

    def check_classes(self, label_names: Sequence[str]) -> None:
        """Checks `class_prior`, in addition to the base class's settings."""
        super().check_classes(label_names)
        if self.class_prior is not None:
            given_prior(self.class_prior, label_names)

    def fraction_at(self, number: int) -> float:
        """Returns the fraction of the pool that a round selects: easy rows first, harder ones later.

        Bengio et al. 2009, "Curriculum learning".

        Args:
            number (`int`): Number of the round, from 0.
        """
        first, last = self.selection_fraction, self.final_selection_fraction
        if last is None or self.rounds == 1:
            return first
        return first + (last - first) * number / (self.rounds - 1)
