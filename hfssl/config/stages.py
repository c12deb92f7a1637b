"""Defines `STAGES`, the only list of the stages of `fit`. Runner, costs, verdict, reports and figures read it.

Rows are plain data, so that reports and `--help` do not import torch. Functions are named by their import path and
imported on use. A new stage is a file below `hfssl/pipeline/stages/` and a row here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from hfssl.config.methods import METHODS

__all__ = [
    "LABELS_ONLY",
    "NEUTRAL_GAIN_PRIOR",
    "STAGES",
    "Stage",
    "method_stage",
    "pool_methods",
    "stage_color",
    "stage_row",
]

Product = Literal["encoder", "classifier", "folds", "predictions", "final"]

LABELS_ONLY = "labels_only"
"""Name of the stage that all other stages are compared with."""

NEUTRAL_GAIN_PRIOR = (0.0, 0.03)
"""Mean and standard deviation of the gain of a stage without earlier runs."""

FALLBACK_COLORS = ("#b7791f", "#8a5a83", "#a1553f")


@dataclass(frozen=True)
class Stage:
    """Describes one stage of `fit`, as plain data.

    Args:
        title (`str`): Name in the report and the model card; progress bars and the table of costs use it in lower
            case.
        run (`str`): Import path `module:function` of `run(context, folder) -> StageRecord`.
        product (`str`, defaults to `"classifier"`): Result of the stage: an `"encoder"` that later stages start from,
            a `"classifier"` that the verdict compares with labels only, models of the `"folds"` of the labels that
            later stages use, `"predictions"` that the verdict rests on, or the `"final"` model, trained after the
            verdict on all labels.
        reads_pool (`bool`, defaults to `True`): Whether the stage's classifier learns from the unlabeled rows.
        model_title (`str`, *optional*): Name of its model in the closing table and in the verdict ("the self-trained
            model"); the title in lower case by default.
        color (`str`, *optional*): Color of the stage in figures; one of `FALLBACK_COLORS` by default.
        gain_prior (`tuple[float, float]`, defaults to `NEUTRAL_GAIN_PRIOR`): Mean and standard deviation of the gain
            in accuracy over labels only that a run is expected to have, in `[-1, 1]`.
        planned (`str`, *optional*): Import path of `is_planned(plan) -> bool`, which gets the plan of the stages
            before; by default the stage runs if there are unlabeled rows.
        cost (`str`, *optional*): Import path of `cost(sizes, stage) -> StageCost`; a stage without one is not listed
            among the costs.
        train_fold (`str`, *optional*): Import path of `train_fold(context, fold) -> PreTrainedModel`, which trains the
            stage's model on the labeled rows outside a fold. Without it the folds cannot judge in runs that hold this
            stage: the verdict compares all stages on the same rows.
        refit (`str`, *optional*): Import path of `refit(context, folder, labeled) -> Trained`, which trains the
            stage's model once more, on all labels. Without it the stage is handed over as the verdict selected it.
        method (`str`, *optional*): Name in `METHODS` of the method that the stage trains, which must be defined for
            the run's task; `None` where it trains as other stages do. See `method_stage`.
        on_request (`bool`, defaults to `False`): Whether the stage runs only if the option `pool_method` names it.
        includes (`tuple[str, ...]`): Earlier stages whose time and settings are reported with this one, where they
            ran, as they make no classifier of their own.

    Example:
        >>> from hfssl.config.stages import STAGES
        >>> STAGES["self_training"].model
        'self-trained'
    """

    title: str
    run: str
    product: Product = "classifier"
    reads_pool: bool = True
    model_title: str | None = None
    color: str | None = None
    gain_prior: tuple[float, float] = NEUTRAL_GAIN_PRIOR
    planned: str | None = None
    cost: str | None = None
    train_fold: str | None = None
    refit: str | None = None
    method: str | None = None
    on_request: bool = False
    includes: tuple[str, ...] = ()

    @property
    def lower_title(self) -> str:
        """Returns the title for use in a sentence or a progress bar: `"self-training"`; `"FixMatch"` stays."""
        if any(letter.isupper() for letter in self.title[1:]):
            return self.title
        return self.title[:1].lower() + self.title[1:]

    @property
    def model(self) -> str:
        """Returns the name of the stage's model: `"self-trained"`."""
        return self.model_title or self.lower_title


def method_stage(method: str, title: str, **more: Any) -> Stage:
    """Returns the row of a stage that trains with one method, on the labeled rows and the pool.

    Args:
        method (`str`): Name in `METHODS`.
        title (`str`): Title of the stage.
        more (`Any`): Other fields of `Stage`.

    Example:
        >>> method_stage("fixmatch", "FixMatch").run
        'hfssl.pipeline.stages.pool_method:run'
    """
    functions = {name: f"hfssl.pipeline.stages.pool_method:{name}" for name in ("run", "cost", "train_fold", "refit")}
    return Stage(**{"title": title, "method": method, **functions, **more})


STAGES: dict[str, Stage] = {
    "pretext": Stage(
        title="Pretext",
        run="hfssl.pipeline.stages.adapt_backbone:run",
        method="masked_span",
        product="encoder",
        color="#3b8272",
        planned="hfssl.pipeline.stages.adapt_backbone:is_planned",
        cost="hfssl.pipeline.stages.adapt_backbone:cost",
    ),
    LABELS_ONLY: Stage(
        title="Labels only",
        run="hfssl.pipeline.stages.labels_only:run",
        method="supervised",
        reads_pool=False,
        color="#8b95a1",
        planned="hfssl.pipeline.stages.labels_only:is_planned",
        cost="hfssl.pipeline.stages.labels_only:cost",
        train_fold="hfssl.pipeline.stages.labels_only:train_fold",
        refit="hfssl.pipeline.stages.labels_only:refit",
    ),
    "labels_only_after_pretext": Stage(
        title="Labels only after pretext",
        run="hfssl.pipeline.stages.labels_only_after_pretext:run",
        method="supervised",
        reads_pool=False,
        model_title="pretext-adapted",
        color="#3b8272",
        gain_prior=(0.0, 0.02),
        planned="hfssl.pipeline.stages.labels_only_after_pretext:is_planned",
        cost="hfssl.pipeline.stages.labels_only_after_pretext:cost",
        train_fold="hfssl.pipeline.stages.labels_only_after_pretext:train_fold",
        refit="hfssl.pipeline.stages.labels_only_after_pretext:refit",
        includes=("pretext",),
    ),
    "folds": Stage(
        title="Folds of the labels",
        run="hfssl.pipeline.stages.folds:run",
        product="folds",
        planned="hfssl.pipeline.stages.folds:is_planned",
        cost="hfssl.pipeline.stages.folds:cost",
    ),
    "self_training": Stage(
        title="Self-training",
        run="hfssl.pipeline.stages.self_training:run",
        method="self_training",
        model_title="self-trained",
        color="#27598c",
        gain_prior=(0.03, 0.03),
        planned="hfssl.pipeline.stages.self_training:is_planned",
        cost="hfssl.pipeline.stages.self_training:cost",
        train_fold="hfssl.pipeline.stages.self_training:train_fold",
        refit="hfssl.pipeline.stages.self_training:refit",
        includes=("folds",),
    ),
    "baselines": Stage(
        title="Baselines",
        run="hfssl.pipeline.stages.baselines:run",
        product="predictions",
        planned="hfssl.pipeline.stages.baselines:is_planned",
    ),
    "cross_fitting": Stage(
        title="Cross-fitting",
        run="hfssl.pipeline.stages.cross_fitting:run",
        product="predictions",
        planned="hfssl.pipeline.stages.cross_fitting:is_planned",
        cost="hfssl.pipeline.stages.cross_fitting:cost",
    ),
    "refit": Stage(
        title="Refit on all labels",
        run="hfssl.pipeline.stages.refit:run",
        product="final",
        model_title="refit, all labels",
        planned="hfssl.pipeline.stages.refit:is_planned",
        cost="hfssl.pipeline.stages.refit:cost",
    ),
}


TITLES = {
    "pseudo_label": "Pseudo-Label",
    "mean_teacher": "Mean Teacher",
    "multi_head": "Multi-head ensemble",
    "pi_model": "Pi-model",
    "vat": "VAT",
    "uda": "UDA",
    "mixmatch": "MixMatch",
    "mixtext": "MixText",
    "fixmatch": "FixMatch",
    "flexmatch": "FlexMatch",
    "freematch": "FreeMatch",
    "softmatch": "SoftMatch",
    "adamatch": "AdaMatch",
}
"""Method -> title of its stage, where it is not its name in words."""


def pool_methods() -> dict[str, Stage]:
    """Returns the stages of the methods that learn from labels and a pool in one training run, by method.

    They run only where `pool_method` names one.

    Example:
        >>> all(stage.on_request for stage in pool_methods().values())
        True
    """
    found = {
        name: method_stage(name, TITLES.get(name, name.replace("_", " ").capitalize()), on_request=True)
        for name, method in METHODS.items()
        if method.product == "classifier" and "unlabeled" in method.streams and method.driver is None
    }
    return {name: stage for name, stage in found.items() if name not in STAGES}


STAGES |= pool_methods()
if "softmatch" in METHODS:
    STAGES["both"] = method_stage("softmatch", "SoftMatch on pseudo-labels", on_request=True, refit=None)


def stage_row(name: str) -> Stage:
    """Returns the row of a stage; for an unlisted name, a neutral row with a readable title.

    Example:
        >>> stage_row("my_stage").title
        'My stage'
    """
    return STAGES.get(name) or Stage(title=name.replace("_", " ").capitalize(), run="")


def stage_color(name: str) -> str:
    """Returns the color of a stage in figures, always the same for the same name."""
    return stage_row(name).color or FALLBACK_COLORS[sum(name.encode()) % len(FALLBACK_COLORS)]
