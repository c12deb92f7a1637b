"""The ensemble of teachers: models that label a pool, and their predictions. M teachers, N rows, K classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hfssl.inference.predictions import MCDropoutResult, combine
from hfssl.inference.scoring import mc_dropout, predict_logits
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.embeddings import embed_layers
from hfssl.methods.self_training.frozen_encoder.layer_probe import LayerProbe, fit_layer_probe
from hfssl.methods.self_training.frozen_encoder.signals import EmbeddingSignals
from hfssl.methods.self_training.votes import mixed
from hfssl.runtime.distributed import broadcast, is_main
from hfssl.runtime.files import read_arrays, write_arrays
from hfssl.runtime.seeding import derive_seed
from hfssl.tasks.base import Task
from hfssl.tasks.registry import get_task
from hfssl.training.weight_averaging import mean_of_weights

__all__ = ["EnsemblePrediction", "Teacher", "form_ensemble", "mean_probs", "score_pool", "with_soup"]

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Teacher:
    """Predicts labels of the pool, by the model's head or by logistic regression on the means over its tokens.

    Attributes:
        model (`PreTrainedModel`): A classifier, on the device to use.
        probe (`LayerProbe`, *optional*): Probe of its last layer; `None` uses the head.
        bf16 (`bool`, defaults to `False`): Whether to compute in bfloat16, as in training.
        task (`Task`, *optional*): Kind of prediction. Default: one label per text.
        pool_probs (`np.ndarray`, *optional*): Its probabilities of the pool, `[N, K]`, where they are known: then the
            model does not score the pool again.
    """

    model: PreTrainedModel
    probe: LayerProbe | None = None
    bf16: bool = False
    task: Task = field(default_factory=get_task)
    pool_probs: np.ndarray | None = None

    def probs(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, progress: str | None = None) -> np.ndarray:
        """Returns the probabilities, `[N, K]`, without dropout. Collective: every rank must call this.

        Args:
            rows (`Dataset`): N tokenized rows.
            tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
            progress (`str`, *optional*): Title of a progress bar; `None` shows no bar.
        """
        if self.probe is not None:
            embedded = embed_layers(self.model, rows, tokenizer, upper=False, bf16=self.bf16, progress=progress)
            return self.probe.probs(embedded).astype(np.float32)
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
            return self.task.unit_probs(predict_logits(self.model, rows, tokenizer, progress=progress))


def form_ensemble(
    models: Sequence[PreTrainedModel],
    labeled: Dataset | None,
    tokenizer: PreTrainedTokenizerBase,
    *,
    num_classes: int,
    bf16: bool,
    task: Task,
) -> list[Teacher]:
    """Makes teachers of models.

    Args:
        models (`Sequence[PreTrainedModel]`): M models, on the device to use.
        labeled (`Dataset`, *optional*): Tokenized rows with `labels`, to which a probe of each model's last layer is
            fitted; `None` uses the heads of the models.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        num_classes (`int`): Number K of classes.
        bf16 (`bool`): Whether the models compute in bfloat16.
        task (`Task`): Kind of prediction.
    """
    if labeled is None:
        return [Teacher(model, bf16=bf16, task=task) for model in models]
    task.require_class_per_row("teacher_probe")
    labels, teachers = task.label_array(labeled), []
    for model in models:
        embedded = embed_layers(model, labeled, tokenizer, upper=False, bf16=bf16)
        # The seed is for the folds that weight several layers; there is one layer here.
        teachers.append(Teacher(model, broadcast(fit_layer_probe(embedded, labels, num_classes, seed=0)), bf16, task))
    return teachers


def with_soup(models: list[PreTrainedModel]) -> list[PreTrainedModel]:
    """Adds the mean of several models' weights in front of them; students start from the first model.

    Model soups (Wortsman et al. 2022). The factors of two adapters cannot be averaged: the product of the means is not
    the mean of the products.

    Args:
        models (`list[PreTrainedModel]`): At least one model. A single model, or an adapter, gets no soup.
    """
    if len(models) < 2:
        return models
    if isinstance(models[0], PeftModel):
        if is_main():
            logger.warning("Adapters cannot be averaged: model_soup is ignored.")
        return models
    return [mean_of_weights(models), *models]


def mean_probs(teachers: Sequence[Teacher], rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Returns the mean of the teachers' probabilities, `[N, K]`. Collective: every rank must call this."""
    return np.mean([teacher.probs(rows, tokenizer) for teacher in teachers], axis=0)


@dataclass(frozen=True)
class EnsemblePrediction:
    """Holds the predictions of M teachers for N rows.

    Attributes:
        teacher_probs (`np.ndarray`): Probabilities of each teacher alone, without dropout, `[M, N, K]`.
        combined (`MCDropoutResult`): Result of all passes of all teachers. Embedding signals change only its
            deterministic probabilities.
    """

    teacher_probs: np.ndarray
    combined: MCDropoutResult

    @classmethod
    def of(cls, results: Sequence[MCDropoutResult]) -> EnsemblePrediction:
        """Combines the results of M teachers, each with the same weight."""
        return cls(np.stack([result.deterministic_probs for result in results]), combine(results))

    def with_signals(self, signals: EmbeddingSignals, weights: Mapping[str, float]) -> EnsemblePrediction:
        """Returns the prediction changed by embedding signals: first each teacher's, then their mean.

        Args:
            signals (`EmbeddingSignals`): Signals of the N rows.
            weights (`Mapping[str, float]`): Weight of each member other than the teachers; see `mixed`.
        """
        probs = np.mean([mixed(signals.votes(probs), weights) for probs in self.teacher_probs], axis=0)
        return replace(self, combined=replace(self.combined, deterministic_probs=signals.adjust_ensemble(probs)))

    def merged(self, other: EnsemblePrediction) -> EnsemblePrediction:
        """Returns the prediction of both ensembles, each with a total weight of one half."""
        return EnsemblePrediction(
            np.concatenate([self.teacher_probs, other.teacher_probs]), combine([self.combined, other.combined])
        )

    def save(self, path: Path) -> None:
        """Writes an `.npz` file, completely or not at all."""
        write_arrays(path, asdict(self.combined) | {"teacher_probs": self.teacher_probs})

    @classmethod
    def load(cls, path: Path) -> EnsemblePrediction:
        """Reads a file of `save`."""
        arrays = read_arrays(path)
        return cls(arrays.pop("teacher_probs"), MCDropoutResult(**arrays))


def score_pool(
    teachers: Sequence[Teacher],
    pool: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    args: SelfTrainingConfig,
    *,
    stream: str | int,
    title: str | None,
) -> list[MCDropoutResult]:
    """Runs each teacher over the pool.

    Collective: every rank must call this. Each scores a share of the batches.

    Args:
        teachers (`Sequence[Teacher]`): M teachers.
        pool (`Dataset`): N tokenized rows.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        args (`SelfTrainingConfig`): Settings, of which `mc_passes`, `mc_top_layers`, `bf16` and `seed` matter here.
            The stochastic passes are divided among the teachers, which differ more than the passes of one of them;
            with 0 passes the uncertainty is the teachers' disagreement.
        stream (`str` or `int`): Name that separates the random numbers of these passes from those of other calls.
        title (`str`, *optional*): Title of the progress bars; `None` shows no bar.
    """
    each = math.ceil(args.mc_passes / len(teachers))
    what = f"{each} passes over" if each else "one pass over"
    results = []
    for i, teacher in enumerate(teachers):
        if teacher.pool_probs is not None:
            results.append(MCDropoutResult.of_one_pass(teacher.pool_probs))
            continue
        who = f"teacher {i + 1} of {len(teachers)}, " if len(teachers) > 1 else ""
        progress = None if title is None else f"{title}: {who}{what} the pool"
        if each == 0:
            results.append(MCDropoutResult.of_one_pass(teacher.probs(pool, tokenizer, progress)))
            continue
        with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
            result = mc_dropout(
                teacher.model,
                pool,
                tokenizer,
                passes=each,
                top_layers=args.mc_top_layers,
                seed=derive_seed(args.seed, "mc_dropout", stream, i),
                progress=progress,
                task=teacher.task,
            )
        if teacher.probe is not None:
            result = replace(result, deterministic_probs=teacher.probs(pool, tokenizer))
        results.append(result)
    return results
