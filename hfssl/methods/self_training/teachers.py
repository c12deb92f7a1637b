"""What a committee of teachers says of the pool: their passes, the probe's say beside theirs, the class prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from scipy.special import softmax
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hfssl.evaluation.temperature_scaling import fit_temperature
from hfssl.functional.class_priors import class_prior, consensus_prior, estimate_prior, predicted_prior
from hfssl.inference.predictions import MCDropoutResult, combine
from hfssl.inference.scoring import mc_dropout, predict_logits
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.layer_probe import LayerProbe, fit_layer_probe
from hfssl.methods.self_training.frozen_encoder.signals import Neighborhood, embed_layers, probe_say
from hfssl.runtime.distributed import broadcast, is_main
from hfssl.runtime.files import read_arrays, write_arrays
from hfssl.runtime.seeding import derive_seed
from hfssl.training.weight_averaging import mean_of_weights

__all__ = [
    "Opinions",
    "Teacher",
    "find_class_prior",
    "form_committee",
    "held_out_temperature",
    "probe_weight",
    "score_pool",
    "with_soup",
]

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Teacher:
    """A model that labels the pool: by its head, or by logistic regression on the means over its tokens.

    Attributes:
        model: On the device to use.
        probe: Of its last layer; `None` leaves it to the head.
        bf16: Whether it computes in it, as in training.
    """

    model: PreTrainedModel
    probe: LayerProbe | None = None
    bf16: bool = False

    def probs(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, progress: str | None = None) -> np.ndarray:
        """`[N, K]` without dropout; all ranks come here."""
        if self.probe is not None:
            embedded = embed_layers(self.model, rows, tokenizer, probe=False, bf16=self.bf16, progress=progress)
            return self.probe.probs(embedded).astype(np.float32)
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
            return softmax(predict_logits(self.model, rows, tokenizer, progress=progress), axis=-1)


def form_committee(
    models: Sequence[PreTrainedModel],
    labeled: Dataset | None,
    tokenizer: PreTrainedTokenizerBase,
    *,
    num_classes: int,
    bf16: bool,
) -> list[Teacher]:
    """Teachers that speak through a probe of their last layer, fitted to `labeled`, or by their heads without it."""
    if labeled is None:
        return [Teacher(model, bf16=bf16) for model in models]
    labels, teachers = np.asarray(labeled["labels"][:]), []
    for model in models:
        embedded = embed_layers(model, labeled, tokenizer, probe=False, bf16=bf16)
        # The seed is of the folds by which several layers would get their say.
        teachers.append(Teacher(model, broadcast(fit_layer_probe(embedded, labels, num_classes, seed=0)), bf16))
    return teachers


def with_soup(models: list[PreTrainedModel]) -> list[PreTrainedModel]:
    """The models, after the mean of their weights if they are several: students start from the first.

    Model soups (Wortsman et al. 2022). The factors of two adapters may not be averaged: the product of the means is
    not the mean of the products.
    """
    if len(models) < 2:
        return models
    if isinstance(models[0], PeftModel):
        if is_main():
            logger.warning("Adapters cannot be averaged: the teachers go without model_soup.")
        return models
    return [mean_of_weights(models), *models]


@dataclass(frozen=True)
class Opinions:
    """What M teachers say of N rows and K classes.

    Attributes:
        teacher_probs: `[M, N, K]`, of each teacher alone.
        joined: All their passes; its deterministic probabilities hold what the probe, or the classes' names, add.
    """

    teacher_probs: np.ndarray
    joined: MCDropoutResult

    @classmethod
    def of(
        cls,
        results: Sequence[MCDropoutResult],
        around: Neighborhood | None,
        probe_weight: float,
        smoothing: float = 0.0,
    ) -> Opinions:
        """Each teacher's passes, joined with what the backbone says of the pool; `around=None` adds nothing.

        Args:
            results: of M teachers.
            around: the probe, the classes' names and each row's neighbours.
            probe_weight: the probe's say.
            smoothing: the neighbours' say, after the probe's.
        """
        teacher_probs, combined = np.stack([result.deterministic_probs for result in results]), combine(results)
        if around is not None:
            joined = np.mean([around.joined(probs, probe_weight) for probs in teacher_probs], axis=0)
            combined = replace(combined, deterministic_probs=around.smoothed(joined, smoothing))
        return cls(teacher_probs, combined)

    def beside(self, others: Opinions) -> Opinions:
        """Two committees as one, in which each as a whole has half of the say."""
        return Opinions(
            np.concatenate([self.teacher_probs, others.teacher_probs]), combine([self.joined, others.joined])
        )

    def save(self, path: Path) -> None:
        """Writes an `.npz` file, whole or not at all."""
        write_arrays(path, asdict(self.joined) | {"teacher_probs": self.teacher_probs})

    @classmethod
    def load(cls, path: Path) -> Opinions:
        """Reads what `save` wrote."""
        arrays = read_arrays(path)
        return cls(arrays.pop("teacher_probs"), MCDropoutResult(**arrays))


def score_pool(
    teachers: Sequence[Teacher],
    pool: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    args: SelfTrainingConfig,
    *,
    passes: int,
    stream: str | int,
    title: str | None,
) -> list[MCDropoutResult]:
    """What each teacher says of the pool.

    All ranks come here: each scores a share of the batches.

    Args:
        teachers: M of them.
        pool: N tokenized rows.
        tokenizer: pads the batches.
        args: `mc_top_layers`, `bf16` and `seed` count here.
        passes: stochastic passes in all, shared out among the teachers, who show more between them than dropout alone;
            0 leaves it to them.
        stream: tells these passes' random numbers from those of other calls.
        title: beside the progress bars; `None` shows none.
    """
    each = math.ceil(passes / len(teachers))
    looking = f"{each} passes over" if each else "looking at"
    results = []
    for i, teacher in enumerate(teachers):
        who = f"teacher {i + 1} of {len(teachers)}, " if len(teachers) > 1 else ""
        progress = None if title is None else f"{title}: {who}{looking} the pool"
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
            )
        if teacher.probe is not None:
            result = replace(result, deterministic_probs=teacher.probs(pool, tokenizer))
        results.append(result)
    return results


def probe_weight(
    around: Neighborhood | None,
    teachers: Sequence[Teacher],
    held_out: Dataset | None,
    tokenizer: PreTrainedTokenizerBase,
) -> float:
    """The say of the untrained backbone's probe beside these teachers, by held-out labels; 0 where none was asked."""
    if around is None or around.probe_probs is None:
        return 0.0
    said, labels = np.zeros_like(around.probe_held_out), np.zeros(0, dtype=np.int64)
    if len(around.probe_held_out):
        said, labels = _mean_probs(teachers, held_out, tokenizer), np.asarray(held_out["labels"][:])
    return broadcast(probe_say(around.probe_held_out, said, labels))


def held_out_temperature(
    around: Neighborhood | None,
    teachers: Sequence[Teacher],
    held_out: Dataset | None,
    tokenizer: PreTrainedTokenizerBase,
    probe_weight: float,
) -> float:
    """The temperature of what these teachers, and the probe beside them, say; 1 without held-out labels.

    A model that was trained on a few labels is surer than it is right: before a threshold is put on its confidence,
    that is brought to how often it is right on labels that it has not seen (Guo et al. 2017; see `fit_temperature`).

    Args:
        around: whose probe was asked of the same `held_out` rows; `None` for none.
        teachers: M of them.
        held_out: tokenized rows with `labels`, or `None`.
        tokenizer: pads the batches.
        probe_weight: the probe's say.
    """
    if held_out is None or len(held_out) == 0:
        return 1.0
    said = _mean_probs(teachers, held_out, tokenizer)
    if around is not None and around.probe_held_out is not None:
        said = (1 - probe_weight) * said + probe_weight * around.probe_held_out
    return broadcast(fit_temperature(np.log(np.maximum(said, 1e-12)), held_out["labels"][:]))


def _mean_probs(teachers: Sequence[Teacher], rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    return np.mean([teacher.probs(rows, tokenizer) for teacher in teachers], axis=0)


def find_class_prior(
    opinions: Opinions, labels: Sequence[int], alignment: str, probe_weight: float
) -> np.ndarray | None:
    """`[K]`, the shares that `distribution_alignment` asks the pool's labels to be brought to; `None` for none.

    How far the pool is from what a teacher finds at first sight, each says for itself: joined with the opinions that
    they share, the teachers would seem to agree. The more the probe has to say, the less this counts.

    Args:
        opinions: of teachers that learned from `labels`, or from a part of them with the same shares.
        labels: of the labeled rows.
        alignment: as in `SelfTrainingConfig`.
        probe_weight: the probe's say in `opinions.joined`.
    """
    if alignment == "none":
        return None
    prior = class_prior(labels, opinions.teacher_probs.shape[-1])
    if alignment == "labeled":
        return prior
    if alignment == "predicted":
        return broadcast(predicted_prior(opinions.joined.predicted, prior))
    as_found = _mean_prior(opinions.joined.deterministic_probs)
    changes = [estimate_prior(probs, prior) / _mean_prior(probs) for probs in opinions.teacher_probs]
    estimates = [as_found * change ** (1 - probe_weight) for change in changes]
    return broadcast(consensus_prior(estimates, as_found, opinions.teacher_probs.shape[1]))


def _mean_prior(probs: np.ndarray) -> np.ndarray:
    """`[N, K]` -> `[K]`, all positive."""
    return np.maximum(probs.mean(axis=0, dtype=np.float64), 1e-12)
