"""Defines `METHODS`, the only list of methods. Command line, recipes, documentation and behaviour tests read it.

Rows are plain data, so that `--help` does not import torch. Classes are named by their import path and imported on
use. A new method is a file below `hfssl/methods/`, a row here, and a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from hfssl.config.tasks import DEFAULT_TASK
from hfssl.errors import ConfigurationError, near_matches

__all__ = ["CAPABILITIES", "METHODS", "Method", "methods_table", "resolve"]

CAPABILITIES: dict[str, str] = {
    "changes_labeled_loss": "with `lambda_u=0` it is not supervised training, bit for bit",
    "couples_rows": "a row's loss depends on other rows of its batch: one rank and two ranks differ",
    "no_exact_accumulation": "accumulating small batches is not the same as one large batch",
    "no_lora": "it cannot train a LoRA adapter",
}
"""The opt-outs of the behaviour matrix (`tests/methods/test_matrix.py`): name -> what does not hold."""


@dataclass(frozen=True)
class Method:
    """Describes one method, as plain data.

    Args:
        summary (`str`): One line for help texts and the documentation's table.
        config (`str`): Import path `module:Class` of its training arguments.
        trainer (`str`): Import path `module:Class` of its trainer.
        paper (`str`): Source, with the equation or section: the `paper` of the trainer's objective.
        product (`str`, defaults to `"classifier"`): Kind of the trained model: a `"classifier"`, an `"encoder"` whose
            head is not trained, or a `"masked_lm"` whose encoder is used afterwards.
        streams (`tuple[str, ...]`): Streams of rows that the method reads, among `"labeled"` and `"unlabeled"`.
        tasks (`tuple[str, ...]`): Kinds of prediction that the method supports, names in `hfssl.config.tasks.TASKS`.
        opt_outs (`Mapping[str, str]`): Names in `CAPABILITIES` with the reason.
        driver (`str`, *optional*): Import path of a function `(TrainingJob) -> TrainedModels` (`hfssl.methods.jobs`)
            for a method that needs more than one trainer (rounds of self-training); `None` runs the trainer alone.

    Example:
        >>> from hfssl.config.methods import METHODS
        >>> METHODS["supervised"].product
        'classifier'
    """

    summary: str
    config: str
    trainer: str
    paper: str
    product: Literal["classifier", "encoder", "masked_lm"] = "classifier"
    streams: tuple[str, ...] = ("labeled",)
    tasks: tuple[str, ...] = (DEFAULT_TASK,)
    opt_outs: Mapping[str, str] = field(default_factory=dict)
    driver: str | None = None

    def __post_init__(self):
        unknown = sorted(set(self.opt_outs) - set(CAPABILITIES))
        if unknown:
            raise ValueError(f"opt_outs: expected names among {', '.join(CAPABILITIES)}; got {', '.join(unknown)}.")

    @property
    def config_class(self) -> type[Any]:
        """Returns the subclass of `SSLConfig`; imports torch."""
        return resolve(self.config)

    @property
    def trainer_class(self) -> type[Any]:
        """Returns the subclass of `SSLTrainer`; imports torch."""
        return resolve(self.trainer)


def resolve(path: str) -> Any:
    """Imports the object at the path `module:name`.

    Raises:
        ConfigurationError: the path has another form, or the module or the name does not exist. What goes wrong inside
            the module while it is imported is raised as it is.

    Example:
        >>> resolve("hfssl.errors:HfsslError").__name__
        'HfsslError'
    """
    module, _, name = path.partition(":")
    if not (module and name):
        raise ConfigurationError(f"Expected an import path 'module:name', got '{path}': put a colon before the name.")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports
        raise ConfigurationError(
            f"Expected the module {error.name} of the import path '{path}', found no such module: correct the "
            "path, or add the module's folder to PYTHONPATH."
        ) from error
    if not hasattr(found, name):
        close = near_matches(name, [known for known in vars(found) if not known.startswith("_")])
        raise ConfigurationError(
            f"Expected '{name}' in the module {module}, found no such name: correct the import path '{path}'.{close}"
        )
    return getattr(found, name)


METHODS: dict[str, Method] = {
    "supervised": Method(
        summary="fine-tuning on the labels alone",
        config="hfssl.methods.supervised:SupervisedConfig",
        trainer="hfssl.methods.supervised:SupervisedTrainer",
        paper="Cross-entropy fine-tuning (Devlin et al. 2019, section 4)",
    ),
    "contrastive": Method(
        summary="contrastive stage on the labels, before a head is trained",
        config="hfssl.methods.contrastive:ContrastiveConfig",
        trainer="hfssl.methods.contrastive:ContrastiveTrainer",
        paper=(
            "Supervised Contrastive Learning (Khosla et al. 2020), equation 2; two dropout views after SimCSE (Gao "
            "2021)"
        ),
        product="encoder",
        opt_outs={
            "couples_rows": "every labeled row of a batch is compared with the others",
            "no_exact_accumulation": "every labeled row of a batch is compared with the others",
        },
    ),
    "masked_span": Method(
        summary="masked-span pretext training on raw text",
        config="hfssl.methods.pretext.masked_span:MaskedSpanConfig",
        trainer="hfssl.methods.pretext.masked_span:MaskedSpanTrainer",
        paper="SpanBERT: Improving Pre-training by Representing and Predicting Spans (Joshi et al. 2020), section 3.1",
        product="masked_lm",
        streams=("unlabeled",),
    ),
    "self_training": Method(
        summary="rounds of teacher, pseudo-labels with uncertainty, student",
        config="hfssl.methods.self_training.config:SelfTrainingConfig",
        trainer="hfssl.methods.self_training.student:SelfTrainingTrainer",
        paper=(
            "Uncertainty-aware Self-training for Few-shot Text Classification (Mukherjee & Awadallah 2020), equation "
            "10"
        ),
        streams=("labeled", "unlabeled"),
        driver="hfssl.methods.self_training.driver:train_rounds",
    ),
    "pseudo_label": Method(
        summary="confident predictions are labels of their own rows",
        config="hfssl.methods.consistency.pseudo_label:PseudoLabelConfig",
        trainer="hfssl.methods.consistency.pseudo_label:PseudoLabelTrainer",
        paper="Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method (Lee 2013), equations 14 to 16",
        streams=("labeled", "unlabeled"),
    ),
    "pi_model": Method(
        summary="two noisy predictions for a row must agree",
        config="hfssl.methods.consistency.pi_model:PiModelConfig",
        trainer="hfssl.methods.consistency.pi_model:PiModelTrainer",
        paper="Temporal Ensembling for Semi-Supervised Learning (Laine & Aila 2017), algorithm 1",
        streams=("labeled", "unlabeled"),
    ),
    "temporal_ensembling": Method(
        summary="predictions must agree with the average of earlier ones",
        config="hfssl.methods.consistency.temporal_ensembling:TemporalEnsemblingConfig",
        trainer="hfssl.methods.consistency.temporal_ensembling:TemporalEnsemblingTrainer",
        paper="Temporal Ensembling for Semi-Supervised Learning (Laine & Aila 2017), algorithm 2",
        streams=("labeled", "unlabeled"),
    ),
    "mean_teacher": Method(
        summary="predictions must agree with those of averaged weights",
        config="hfssl.methods.consistency.mean_teacher:MeanTeacherConfig",
        trainer="hfssl.methods.consistency.mean_teacher:MeanTeacherTrainer",
        paper="Mean teachers are better role models (Tarvainen & Valpola 2017), section 2",
        streams=("labeled", "unlabeled"),
    ),
    "vat": Method(
        summary="predictions must not change under adversarial noise on embeddings",
        config="hfssl.methods.consistency.vat:VATConfig",
        trainer="hfssl.methods.consistency.vat:VATTrainer",
        paper=(
            "Virtual Adversarial Training (Miyato et al. 2018), equations 5 to 8; on embeddings as Miyato et al. 2017"
        ),
        streams=("labeled", "unlabeled"),
    ),
    "uda": Method(
        summary="sharpened targets of the weak view, annealed labels",
        config="hfssl.methods.consistency.uda:UDAConfig",
        trainer="hfssl.methods.consistency.uda:UDATrainer",
        paper=(
            "Unsupervised Data Augmentation for Consistency Training (Xie et al. 2020), equation 1, section 3.1, "
            "appendix A"
        ),
        streams=("labeled", "unlabeled"),
        opt_outs={
            "changes_labeled_loss": "training-signal annealing leaves out labeled rows",
            "no_exact_accumulation": "the labeled loss is divided by the rows that annealing left in a batch",
        },
    ),
    "mixmatch": Method(
        summary="guessed labels, mixup of labeled and unlabeled rows",
        config="hfssl.methods.consistency.mixmatch:MixMatchConfig",
        trainer="hfssl.methods.consistency.mixmatch:MixMatchTrainer",
        paper="MixMatch: A Holistic Approach to Semi-Supervised Learning (Berthelot et al. 2019), equations 2 to 14",
        streams=("labeled", "unlabeled"),
        opt_outs={
            "changes_labeled_loss": "labeled rows are mixed with others",
            "couples_rows": "rows of a batch are mixed with each other",
            "no_exact_accumulation": "rows of a batch are mixed with each other",
        },
    ),
    "mixtext": Method(
        summary="mixup of hidden states of labeled and unlabeled rows",
        config="hfssl.methods.consistency.mixtext:MixTextConfig",
        trainer="hfssl.methods.consistency.mixtext:MixTextTrainer",
        paper="MixText: Linguistically-Informed Interpolation of Hidden Space (Chen et al. 2020), equations 2 to 9",
        streams=("labeled", "unlabeled"),
        opt_outs={
            "changes_labeled_loss": "labeled rows are mixed with others",
            "couples_rows": "rows of a batch are mixed with each other",
            "no_exact_accumulation": "rows of a batch are mixed with each other",
        },
    ),
    "fixmatch": Method(
        summary="pseudo-labels above a fixed confidence teach a strong view",
        config="hfssl.methods.consistency.fixmatch:FixMatchConfig",
        trainer="hfssl.methods.consistency.fixmatch:FixMatchTrainer",
        paper=(
            "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence (Sohn et al. 2020), eq. 4"
        ),
        streams=("labeled", "unlabeled"),
    ),
    "flexmatch": Method(
        summary="FixMatch with lower thresholds for classes learned slowly",
        config="hfssl.methods.consistency.flexmatch:FlexMatchConfig",
        trainer="hfssl.methods.consistency.flexmatch:FlexMatchTrainer",
        paper=(
            "FlexMatch: Boosting Semi-Supervised Learning with Curriculum Pseudo Labeling (Zhang et al. 2021), "
            "eq. 5-12"
        ),
        streams=("labeled", "unlabeled"),
    ),
    "freematch": Method(
        summary="thresholds that follow the model's confidence, fair classes",
        config="hfssl.methods.consistency.freematch:FreeMatchConfig",
        trainer="hfssl.methods.consistency.freematch:FreeMatchTrainer",
        paper=(
            "FreeMatch: Self-adaptive Thresholding for Semi-supervised Learning (Wang et al. 2023), equations 5 to 12"
        ),
        streams=("labeled", "unlabeled"),
        opt_outs={
            "couples_rows": "the fairness loss is on the mean prediction of a batch",
            "no_exact_accumulation": "the fairness loss is on the mean prediction of a batch",
        },
    ),
    "softmatch": Method(
        summary="every pseudo-label counts, by a Gaussian of its confidence",
        config="hfssl.methods.consistency.softmatch:SoftMatchConfig",
        trainer="hfssl.methods.consistency.softmatch:SoftMatchTrainer",
        paper=(
            "SoftMatch: Addressing the Quantity-Quality Trade-off in Semi-supervised Learning (Chen et al. 2023), "
            "eq. 5-9"
        ),
        streams=("labeled", "unlabeled"),
        opt_outs={
            "no_exact_accumulation": "moving averages include the earlier batches of a step and not the later ones"
        },
    ),
    "adamatch": Method(
        summary="aligned pseudo-labels, threshold relative to the labeled rows",
        config="hfssl.methods.consistency.adamatch:AdaMatchConfig",
        trainer="hfssl.methods.consistency.adamatch:AdaMatchTrainer",
        paper=(
            "AdaMatch: A Unified Approach to Semi-Supervised Learning and Domain Adaptation (Berthelot et al. "
            "2022), sec. 3"
        ),
        streams=("labeled", "unlabeled"),
        opt_outs={"no_exact_accumulation": "the threshold is relative to the labeled rows of a batch"},
    ),
    "dash": Method(
        summary="a threshold on the loss of pseudo-labels that falls",
        config="hfssl.methods.consistency.dash:DashConfig",
        trainer="hfssl.methods.consistency.dash:DashTrainer",
        paper="Dash: Semi-Supervised Learning with Dynamic Thresholding (Xu et al. 2021), equation 9 and algorithm 1",
        streams=("labeled", "unlabeled"),
        opt_outs={"no_exact_accumulation": "the first threshold is the labeled loss of a batch"},
    ),
    "multi_head": Method(
        summary="heads on one encoder learn what the other heads agree on",
        config="hfssl.methods.consistency.multi_head:MultiHeadConfig",
        trainer="hfssl.methods.consistency.multi_head:MultiHeadTrainer",
        paper="JointMatch (Zou & Caragea 2023), section 3; pseudo-margins as MultiMatch (Sirbu et al. 2025)",
        streams=("labeled", "unlabeled"),
        opt_outs={
            "changes_labeled_loss": "labeled rows teach every head",
            "no_exact_accumulation": "moving averages include the earlier batches of a step and not the later ones",
        },
    ),
}


def methods_table(methods: Mapping[str, Method] | None = None, links: Mapping[str, str] | None = None) -> str:
    """Renders the documentation's table of methods.

    Args:
        methods (`Mapping[str, Method]`, *optional*): Name -> row; `METHODS` by default.
        links (`Mapping[str, str]`, *optional*): Name -> address of the method's page; the others get no link.

    Returns:
        `str`: Markdown with a line for each method, in the order of the registry.

    Example:
        >>> from hfssl.config.methods import methods_table
        >>> "`supervised`" in methods_table()
        True
    """
    lines = ["| method | trainer | product | reads | what it does | source |", "|---|---|---|---|---|---|"]
    links = {} if links is None else links
    for name, method in (METHODS if methods is None else methods).items():
        title = f"[`{name}`]({links[name]})" if name in links else f"`{name}`"
        trainer = f"`{method.trainer.partition(':')[2]}`"
        cells = (title, trainer, method.product, ", ".join(method.streams), method.summary, method.paper)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
