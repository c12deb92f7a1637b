"""What a run will cost, before it starts: tokens through the model, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from hfssl.methods.contrastive import ContrastiveConfig
from hfssl.methods.pretext.masked_span import MaskedSpanConfig
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.supervised import SupervisedConfig
from hfssl.pipeline.presets import PRETEXT_ON_REQUEST, Preset
from hfssl.training.config import SSLConfig

__all__ = ["StageCost", "cost_table", "plan", "scoring_tokens"]

# A backward pass costs two forward passes (Kaplan et al. 2020, section 2.1).
TRAINING, SCORING = 3.0, 1.0


@dataclass(frozen=True)
class StageCost:
    """Tokens of one stage.

    Attributes:
        name: As the progress bars call it.
        trained: Tokens that go forward and backward.
        scored: Tokens that go forward only; a pass through a part of the layers counts as that part.
    """

    name: str
    trained: float
    scored: float = 0.0

    @property
    def units(self) -> float:
        """Forward passes of one token."""
        return TRAINING * self.trained + SCORING * self.scored


def scoring_tokens(rows: int, length: float, *, models: int, passes: int, share_of_layers: float = 1.0) -> float:
    """Tokens of MC dropout: each model runs once in full, and `passes` times in all through a share of the layers."""
    return rows * length * (models + passes * share_of_layers)


def cost_table(costs: Sequence[StageCost]) -> str:
    """One line a stage: tokens, and how much of the whole that is.

    Args:
        costs: of the stages in their order, at least one with tokens.
    """
    total = sum(cost.units for cost in costs)
    width = max(len(cost.name) for cost in costs)
    lines = ["What this run will do (a trained token counts as three forward passes):"]
    for cost in costs:
        work = [f"{_short(cost.trained):>7} tokens trained"] + [f"{_short(cost.scored)} scored"] * (cost.scored > 0)
        lines.append(f"  {cost.name.ljust(width)}  {100 * cost.units / total:3.0f}%  {', '.join(work)}")
    return "\n".join(lines)


def _short(tokens: float) -> str:
    """`1234567` -> `"1.23M"`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g}{letter}"
    return f"{tokens:.0f}"


def plan(
    preset: Preset,
    *,
    lengths: Mapping[str, float],
    labels: int,
    held_out: int,
    pool: int,
    layers: int,
    pretext: bool,
    rounds: int,
    refit: bool,
    folds: int = 0,
    max_steps: int | None = None,
) -> list[StageCost]:
    """What the stages of `fit` cost at most: early stops and `labels_stable` make it less.

    Args:
        preset: settings of the stages.
        lengths: mean tokens of a row of `labeled` and of `unlabeled`.
        labels: labeled rows.
        held_out: labeled rows that only the refit learns from.
        pool: N, unlabeled rows.
        layers: of the encoder.
        pretext, rounds, refit: what will be run, whatever the preset says.
        folds: of cross-fitting.
        max_steps: of labels only and of each student, where the user gave it.
    """
    given = {} if max_steps is None else {"max_steps": max_steps}
    labeled, unlabeled = lengths["labeled"], lengths["unlabeled"]

    def trained(kind: type[SSLConfig], settings: Mapping[str, Any], length: float, views: int = 1) -> float:
        steps, rows = (_setting(kind, settings, name) for name in ("max_steps", "per_device_train_batch_size"))
        return steps * rows * views * length

    def labels_only(preset: Preset) -> float:
        tokens = trained(SupervisedConfig, preset.supervised | given, labeled)
        if preset.contrastive is not None:
            tokens += trained(ContrastiveConfig, preset.contrastive, labeled, views=2)
        return tokens

    def taught(preset: Preset) -> float:
        settings = preset.supervised | preset.self_training | given
        ratio = _setting(SelfTrainingConfig, settings, "unlabeled_ratio")
        return trained(SelfTrainingConfig, settings, labeled + ratio * unlabeled)

    some, every = preset.at(labels), preset.at(labels + held_out)
    one, student, costs = labels_only(some), taught(some), []
    if pretext:
        costs.append(
            StageCost("pretext", trained(MaskedSpanConfig, preset.pretext or PRETEXT_ON_REQUEST, unlabeled) + one)
        )
    costs.append(StageCost("labels only", one))
    settings = preset.supervised | preset.self_training | given
    passes, top = (_setting(SelfTrainingConfig, settings, name) for name in ("mc_passes", "mc_top_layers"))
    share = 1.0 if top is None else min(1.0, top / layers)

    def scored(models: int) -> float:
        return scoring_tokens(pool, unlabeled, models=models, passes=passes, share_of_layers=share)

    teachers = _setting(SelfTrainingConfig, settings, "num_teachers")
    opinions = teachers + _setting(SelfTrainingConfig, settings, "model_soup")
    refits_head = _setting(SelfTrainingConfig, settings, "retrain_head")
    head = scoring_tokens(pool, unlabeled, models=1, passes=0, share_of_layers=share) if refits_head else 0.0
    if rounds:
        looked_at = scored(opinions) + (rounds - 1) * scored(1) + rounds * head
        costs.append(StageCost("self-training", (teachers - 1) * one + rounds * student, looked_at))
    if folds:
        models = (2 if pretext else 1) * one + student
        costs.append(StageCost("cross-fitting", folds * models, folds * (scored(1) + head)))
    if refit:
        again = labels_only(every)
        with_pool = StageCost("refit", teachers * again + taught(every), scored(opinions) + head)
        costs.append(with_pool if rounds else StageCost("refit", again))
    return costs


def _setting(kind: type[SSLConfig], settings: Mapping[str, Any], name: str) -> Any:
    """The value in `settings`, or the default of the configuration class."""
    return settings.get(name, next(field.default for field in fields(kind) if field.name == name))
