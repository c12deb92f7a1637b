"""Training arguments of self-training: one student's, and those of the rounds that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field

from hfssl.functional.class_priors import DISTRIBUTION_ALIGNMENTS
from hfssl.functional.weighting import WEIGHTINGS
from hfssl.methods.supervised import SupervisedConfig

__all__ = [
    "ACQUISITION_NAMES",
    "LABEL_SPREADING_MODES",
    "SELECTION_STRATEGY_NAMES",
    "STUDENT_INITS",
    "SelfTrainingConfig",
]

# Of hfssl.functional.selection and hfssl.methods.self_training.frozen_encoder.signals, which live on floors above.
SELECTION_STRATEGY_NAMES = ("easy", "hard", "uniform", "top_k", "threshold", "all")
ACQUISITION_NAMES = ("bald", "entropy", "variance", "margin")
STUDENT_INITS = ("pretrained", "teacher")
LABEL_SPREADING_MODES = ("none", "agreement", "certainty", "labels")


@dataclass
class SelfTrainingConfig(SupervisedConfig):
    """Arguments of `SelfTrainingTrainer` (one student) and of `SelfTraining` (the rounds).

    Names follow Mukherjee & Awadallah (2020), "UST".
    """

    lambda_u: float = field(default=1.0, metadata={"help": "Weight of the pseudo-labeled loss; 0 is labels alone."})
    num_teachers: int = field(
        default=1, metadata={"help": "Models of different seeds whose labels of the pool are averaged in round 1."}
    )
    model_soup: bool = field(
        default=False,
        metadata={
            "help": "Let the mean of several first teachers' weights be one more teacher, from which a student starts "
            "(with student_init='teacher'). Adapters are not averaged."
        },
    )
    student_init: str = field(
        default="pretrained",
        metadata={
            "help": "What a student starts from: the 'pretrained' weights (UST), or those of its first 'teacher', "
            "which with weight_average_decay is the moving average of the student before."
        },
    )
    retrain_head: bool = field(
        default=False,
        metadata={
            "help": "When a student's training is over, fit its logit layer anew to what it was taught, by logistic "
            "regression on the body that it has by then."
        },
    )
    rounds: int = field(default=2, metadata={"help": "Most rounds of teacher -> pseudo-labels -> student."})
    mc_passes: int = field(
        default=10,
        metadata={
            "help": "Stochastic passes with dropout on (T in the paper: 30); 0: doubt is what several teachers "
            "disagree on (deep ensembles)."
        },
    )
    mc_top_layers: int | None = field(
        default=None,
        metadata={
            "help": "Let dropout act in so many upper layers only and run those below once: cheaper passes. Default: "
            "everywhere, as in the paper."
        },
    )
    selection_fraction: float = field(default=0.5, metadata={"help": "Share of the pool that a round draws."})
    final_selection_fraction: float | None = field(
        default=None,
        metadata={
            "help": "Curriculum: the share grows evenly from round to round, to this in the last one. Default: stays."
        },
    )
    acquisition: str = field(
        default="bald",
        metadata={
            "help": "Uncertainty that 'easy' and 'hard' go by: 'bald' (paper), 'entropy', 'variance', 'margin'."
        },
    )
    selection_strategy: str = field(
        default="easy", metadata={"help": "'easy', 'hard', 'uniform', 'top_k', 'threshold' or 'all'."}
    )
    confidence_threshold: float = field(
        default=0.95,
        metadata={
            "help": "Least confidence for selection_strategy='threshold' (FixMatch: 0.95), at a temperature "
            "that is fitted on the held-out labels where there are any."
        },
    )
    weighting: str = field(
        default="log_variance",
        metadata={"help": "'log_variance' (paper), 'one_minus_entropy', 'one_minus_bald', 'confidence', 'uniform'."},
    )
    soft_targets: bool = field(default=False, metadata={"help": "Learn the teacher's probabilities, not its argmax."})
    sharpen_temperature: float = field(
        default=1.0,
        metadata={"help": "Temperature of soft targets: below 1 they become more certain (MixMatch: 0.5)."},
    )
    label_spreading: str = field(
        default="none",
        metadata={
            "help": "What a nearest-neighbour graph over the backbone's embeddings does: 'agreement' weighs rows by "
            "how far it agrees, 'certainty' by how sure it is, 'labels' mixes its labels in; as far as it is trusted."
        },
    )
    label_name_prior: bool = field(
        default=False,
        metadata={
            "help": "Let the classes' names vote on the first pseudo-labels, by how near the backbone finds them to a "
            "text; how much is chosen by cross-validation on the labels."
        },
    )
    teacher_probe: bool = field(
        default=False,
        metadata={
            "help": "Let logistic regression on the means over its tokens speak for each first teacher, not its head: "
            "most stock heads see the first token alone, for which sentence encoders were not trained."
        },
    )
    backbone_probe: bool = field(
        default=False,
        metadata={
            "help": "Let logistic regression on the embeddings of the untrained backbone vote on the first "
            "pseudo-labels; how much is judged by held-out labels, and is 40% without them."
        },
    )
    knn_smoothing: float = field(
        default=0.0,
        metadata={
            "help": "Say that a row's nearest neighbours in the pool, by the backbone's embeddings, have in its first "
            "pseudo-label; 0: none."
        },
    )
    ood_filter: bool = field(
        default=False,
        metadata={"help": "Give no weight to rows unlike all labeled ones, where the pool holds many of them."},
    )
    distribution_alignment: str = field(
        default="none",
        metadata={
            "help": "Class prior that the teacher's probabilities of the pool are brought to: 'none' leaves them as "
            "they are, 'predicted' takes those of its most probable classes (and of the labels, where classes are "
            "many), 'estimated' what the teachers agree on, 'labeled' those of the labels (ReMixMatch)."
        },
    )
    class_prior: str | None = field(
        default=None,
        metadata={
            "help": "Class prior of the pool where they are known, such as 'ham=0.9, spam=0.1', or a JSON file with "
            "them; its labels are brought to these, whatever `distribution_alignment` says."
        },
    )
    stop_agreement: float = field(
        default=0.995,
        metadata={"help": "Stop when this share of the pool kept its pseudo-label since the last round."},
    )

    def problems(self) -> list[str]:
        """As in the base class, of this class's own values, too."""
        found = super().problems()
        if self.lambda_u < 0:
            found.append(f"lambda_u must not be negative, got {self.lambda_u}.")
        if self.lambda_u > 0 and (self.r_drop_alpha > 0 or self.mixup_alpha > 0):
            found.append("r_drop_alpha and mixup_alpha are for teachers, not for students: leave them out here.")
        if self.num_teachers < 1:
            found.append(f"teachers must be at least 1, got {self.num_teachers}.")
        if self.model_soup and self.num_teachers == 1:
            found.append("model_soup is the mean of several teachers: set teachers to 2 or more, or leave it out.")
        if self.rounds < 1:
            found.append(f"rounds must be at least 1, got {self.rounds}.")
        if self.mc_passes < 0:
            found.append(f"mc_passes must not be negative, got {self.mc_passes}.")
        drawn_by_doubt = self.selection_strategy in ("easy", "hard") and self.acquisition in ("bald", "variance")
        weighed_by_doubt = self.weighting in ("log_variance", "one_minus_bald")
        if (
            self.mc_passes == 0
            and (drawn_by_doubt or weighed_by_doubt)
            and (self.num_teachers == 1 or self.rounds > 1)
        ):
            found.append(
                "mc_passes=0 leaves a lone teacher without the doubt that draw, acquisition or weighting go by: give "
                "it passes, or take selection_strategy='all' and weighting='uniform'."
            )
        if not 0 <= self.knn_smoothing < 1:
            found.append(f"knn_smoothing must be at least 0 and below 1, got {self.knn_smoothing}.")
        if self.mc_top_layers is not None and self.mc_top_layers < 1:
            found.append(f"mc_top_layers must be at least 1, got {self.mc_top_layers}; leave it out for all layers.")
        choices = {
            "student_init": STUDENT_INITS,
            "selection_strategy": SELECTION_STRATEGY_NAMES,
            "weighting": WEIGHTINGS,
            "distribution_alignment": DISTRIBUTION_ALIGNMENTS,
        }
        choices |= {"acquisition": ACQUISITION_NAMES, "label_spreading": LABEL_SPREADING_MODES}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                found.append(f"{name} must be one of {', '.join(known)}, got '{getattr(self, name)}'.")
        for name in ("selection_fraction", "final_selection_fraction"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                found.append(f"{name} must be above 0 and at most 1, got {share}.")
        if not 0 < self.confidence_threshold <= 1:
            found.append(f"confidence_threshold must be above 0 and at most 1, got {self.confidence_threshold}.")
        if not self.sharpen_temperature > 0:
            found.append(
                f"sharpen_temperature must be above 0, got {self.sharpen_temperature}; 1 leaves the targets unchanged."
            )
        if not 0 < self.stop_agreement <= 1:
            found.append(f"stop_agreement must be above 0 and at most 1, got {self.stop_agreement}.")
        return found

    def fraction_at(self, number: int) -> float:
        """Share of the pool that round `number`, from 0, draws: easy rows first, harder ones later.

        Bengio et al. 2009, "Curriculum learning".
        """
        first, last = self.selection_fraction, self.final_selection_fraction
        if last is None or self.rounds == 1:
            return first
        return first + (last - first) * number / (self.rounds - 1)
