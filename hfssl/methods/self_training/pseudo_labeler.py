"""Pseudo-labels of a pool, by teachers. No other module assigns pseudo-labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from scipy.special import softmax
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.functional.class_priors import (
    align_distribution,
    consensus_prior,
    estimate_prior,
    given_prior,
    predicted_prior,
)
from hfssl.functional.class_priors import class_prior as prior_of_labels
from hfssl.functional.selection import ACQUISITIONS, SELECTION_STRATEGIES, Candidates
from hfssl.functional.weighting import normalize_to_mean_one, pseudo_label_weights
from hfssl.inference.predictions import MCDropoutResult
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.cache import SignalCache
from hfssl.methods.self_training.frozen_encoder.signals import EmbeddingSignals
from hfssl.methods.self_training.pseudo_labels import PseudoLabels
from hfssl.methods.self_training.teachers import EnsemblePrediction, Teacher, mean_probs, score_pool
from hfssl.methods.self_training.votes import TEACHERS, Votes
from hfssl.runtime.distributed import broadcast, is_main
from hfssl.runtime.seeding import numpy_generator
from hfssl.tasks.registry import get_task

__all__ = ["LabeledPool", "PseudoLabeler", "find_class_prior", "sharpened"]


@dataclass(frozen=True)
class LabeledPool:
    """Holds the pseudo-labels of a pool, with the values that led to them.

    Attributes:
        labels (`PseudoLabels`): Pseudo-labels that the student learns.
        ensemble (`EnsemblePrediction`): Predictions of the teachers, after the embedding signals.
        signals (`EmbeddingSignals`, *optional*): Embedding signals; `None` where no setting requires them.
        weights (`dict[str, float]`): Weight of each member of the ensemble, with the sum 1; see `Votes`.
        class_prior (`np.ndarray`, *optional*): Class prior to which the labels were aligned, `[K]`; `None` for none.
        temperature (`float`): Temperature of the ensemble's probabilities.
    """

    labels: PseudoLabels
    ensemble: EnsemblePrediction
    signals: EmbeddingSignals | None
    weights: dict[str, float]
    class_prior: np.ndarray | None
    temperature: float


class PseudoLabeler:
    """Labels a pool, in every round of self-training and in a refit, by these steps in this order.

    1. *Score*: each teacher predicts on the pool, with and without dropout (`score_pool`).
    2. *Combine*: the passes of all teachers become one ensemble prediction (`EnsemblePrediction`).
    3. *Embedding signals*: the untrained backbone's signals of the pool (class names, probe, neighbours) change the
       first teachers' predictions. Later teachers have learned the changes from their pseudo-labels.
    4. *Class prior*: it is given by the user, reused from an earlier round, or estimated from the ensemble prediction.
    5. *Temperature*: it is fitted on held-out labels if a threshold on the confidence follows.
    6. *Selection* (`select`): the temperature is applied to the ensemble's probabilities, the graph's labels are mixed
       in, and the result is aligned to the class prior; rows are selected, and get targets and weights.

    Embedding signals depend on no teacher: they are computed before the first step and stored on disk. Several ranks
    share the scoring, and then all use the pseudo-labels of rank 0. If each rank selected rows itself, a difference in
    the last bit between two machines could change the rows, and with them the length of the students' epochs.

    Args:
        make_encoder (`Callable[[], PreTrainedModel]`): Function that returns a model with the backbone's own weights.
        args (`SelfTrainingConfig`): Settings of self-training.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer that pads the batches.
        label_names (`Sequence[str]`): Names of the K classes.
        folder (`Path`): Folder of the pool's embeddings, which do not depend on the labels.
        title (`str`, defaults to `"self-training"`): Title of the progress bars.
        pool_embeddings (`np.ndarray`, *optional*): The pool's embeddings by the backbone where they are known, `[H, N,
            D]`.
    """

    def __init__(
        self,
        make_encoder: Callable[[], PreTrainedModel],
        args: SelfTrainingConfig,
        tokenizer: PreTrainedTokenizerBase,
        label_names: Sequence[str],
        *,
        folder: Path,
        title: str = "self-training",
        pool_embeddings: np.ndarray | None = None,
    ):
        self.args, self.tokenizer, self.task = args, tokenizer, get_task(args.task)
        self.given_prior = None if args.class_prior is None else given_prior(args.class_prior, label_names)
        self.cache = SignalCache(
            make_encoder,
            tokenizer,
            args,
            label_names=label_names,
            folder=folder,
            title=self._shown(title),
            pool_embeddings=pool_embeddings,
        )

    def label(
        self,
        teachers: Sequence[Teacher],
        labeled: Dataset,
        pool: Dataset,
        *,
        stream: str | int,
        title: str,
        fraction: float,
        folder: Path,
        held_out: Dataset | None = None,
        votes: Votes | None = None,
        first: bool = True,
        earlier: EnsemblePrediction | None = None,
        weights: Mapping[str, float] | None = None,
        class_prior: np.ndarray | None = None,
        temperature: float | None = None,
    ) -> LabeledPool:
        """Labels the pool. Collective: every rank must call this; all get the pseudo-labels of rank 0.

        Args:
            teachers (`Sequence[Teacher]`): M teachers.
            labeled (`Dataset`): Tokenized rows with `labels`, from which the first teachers have learned.
            pool (`Dataset`): N tokenized rows.
            stream (`str` or `int`): Number of the round, or another name, that separates its random numbers from
                others.
            title (`str`): Title of the progress bars.
            fraction (`float`): Fraction of the pool to select, in (0, 1].
            folder (`Path`): Folder of the embedding signals for these labeled rows.
            held_out (`Dataset`, *optional*): Tokenized rows with `labels` that no model is trained on.
            votes (`Votes`, *optional*): Predictions of the members for labels that they have not seen, of which the
                weights and the temperature follow. Default: those of `held_out`.
            first (`bool`, defaults to `True`): Whether these are first teachers, which have learned from labels only.
            earlier (`EnsemblePrediction`, *optional*): Prediction of an earlier ensemble, which gets half of the
                weight.
            weights (`Mapping[str, float]`, *optional*): Weights of the members. Default: those of `votes`.
            class_prior (`np.ndarray`, *optional*): Class prior from an earlier round, `[K]`. Default: by the settings.
            temperature (`float`, *optional*): Temperature from an earlier round. Default: that of `votes`.
        """
        signals = self.cache.signals(labeled, pool, held_out, folder)
        results = score_pool(teachers, pool, self.tokenizer, self.args, stream=stream, title=self._shown(title))
        ensemble = EnsemblePrediction.of(results)
        voting = signals if first else None
        if votes is None:
            votes = self._votes(voting, teachers, held_out, ensemble)
        weights = dict(votes.weights if weights is None else weights)
        if voting is not None:
            ensemble = ensemble.with_signals(voting, weights)
        if earlier is not None:
            ensemble = earlier.merged(ensemble)
        if class_prior is None:
            class_prior = self._class_prior(ensemble, labeled, 1 - weights[TEACHERS])
        if temperature is None:
            temperature = broadcast(votes.temperature) if self._has_threshold else 1.0
        selected = self.select(
            ensemble.combined,
            stream=stream,
            fraction=fraction,
            signals=signals,
            class_prior=class_prior,
            temperature=temperature,
        )
        return LabeledPool(broadcast(selected), ensemble, signals, weights, class_prior, temperature)

    def select(
        self,
        prediction: MCDropoutResult,
        *,
        stream: str | int,
        fraction: float = 1.0,
        signals: EmbeddingSignals | None = None,
        class_prior: np.ndarray | None = None,
        temperature: float = 1.0,
    ) -> PseudoLabels:
        """Selects rows and gives them targets and weights: the last step (UST, sections 3.1 to 3.3).

        Args:
            prediction (`MCDropoutResult`): Prediction of the ensemble for N rows.
            stream (`str` or `int`): Name of the selection's random numbers.
            fraction (`float`, defaults to `1.0`): Fraction of the pool to select.
            signals (`EmbeddingSignals`, *optional*): Embedding signals of the N rows.
            class_prior (`np.ndarray`, *optional*): Class prior to which the probabilities are aligned, `[K]`.
            temperature (`float`, defaults to `1.0`): Temperature of the deterministic probabilities.
        """
        probs = sharpened(prediction.deterministic_probs, temperature)
        if signals is not None:
            probs = signals.adjust_labels(probs)
        if class_prior is not None:
            probs = align_distribution(probs, class_prior)
        predicted = self.task.unit_predicted(probs)
        evidence = (prediction.mean_probs, prediction.variance_of(predicted), prediction.bald)
        rows = self._rows(probs, predicted, evidence, fraction, stream)
        if self.args.soft_targets:
            targets = sharpened(probs[rows], self.args.sharpen_temperature)
        else:
            targets = np.eye(probs.shape[1], dtype=np.float32)[predicted[rows]]
        weights = np.zeros(0, dtype=np.float32)
        if len(rows):
            tensors = [torch.from_numpy(values[rows]) for values in evidence]
            weights = pseudo_label_weights(self.args.weighting, *tensors, normalize=False)
            if signals is not None:
                weights = weights * torch.from_numpy(signals.weights(probs))[rows]
            weights = normalize_to_mean_one(weights).numpy().astype(np.float32)
        return PseudoLabels(rows, targets, weights, predicted, prediction.bald)

    def _rows(
        self,
        probs: np.ndarray,
        predicted: np.ndarray,
        evidence: tuple[np.ndarray, ...],
        fraction: float,
        stream: str | int,
    ) -> np.ndarray:
        """Returns the numbers of the selected units, ascending."""
        strategy = self.args.selection_strategy
        num_rows, num_classes = probs.shape
        candidates = Candidates(
            predicted=predicted,
            confidence=probs[np.arange(num_rows), predicted],
            uncertainty=ACQUISITIONS[self.args.acquisition](*evidence),
            num_classes=num_classes,
        )
        size = max(1, round(fraction * num_rows))
        generator = numpy_generator(self.args.seed, "selection", stream)
        thresholds = {"threshold": self.args.confidence_threshold} if strategy == "threshold" else {}
        return SELECTION_STRATEGIES[strategy](candidates, size, generator, **thresholds)

    def _votes(
        self,
        signals: EmbeddingSignals | None,
        teachers: Sequence[Teacher],
        held_out: Dataset | None,
        ensemble: EnsemblePrediction,
    ) -> Votes:
        """Returns the members' predictions for the held-out rows; on no rows where nothing depends on them."""
        members = [TEACHERS] if signals is None else signals.members
        if held_out is None or len(held_out) == 0 or (len(members) == 1 and not self._has_threshold):
            return Votes.none(members)
        probs, labels = mean_probs(teachers, held_out, self.tokenizer), self._labels(held_out)
        if signals is None:
            return broadcast(Votes({TEACHERS: probs}, labels))
        return broadcast(Votes(signals.held_out_votes(probs, ensemble.teacher_probs.mean(axis=0)), labels))

    @property
    def _has_threshold(self) -> bool:
        """Returns whether a threshold on the confidence selects the rows, which needs a temperature.

        A model that was trained on a few labels is overconfident: the temperature moves its confidence to its accuracy
        on held-out labels (Guo et al. 2017; see `fit_temperature`).
        """
        return self.args.selection_strategy == "threshold"

    def _class_prior(self, ensemble: EnsemblePrediction, labeled: Dataset, others_weight: float) -> np.ndarray | None:
        if self.given_prior is not None:
            return self.given_prior
        return find_class_prior(
            ensemble,
            self._labels(labeled),
            self.args.distribution_alignment,
            others_weight=others_weight,
            predicted=self.task.unit_predicted(ensemble.combined.deterministic_probs),
        )

    def _labels(self, rows: Dataset) -> np.ndarray:
        """Returns the classes of the units of encoded rows, `[N]`."""
        return self.task.unit_labels(self.task.label_array(rows))

    def _shown(self, title: str) -> str | None:
        return None if self.args.disable_tqdm or not is_main() else title


def find_class_prior(
    ensemble: EnsemblePrediction,
    labels: Sequence[int] | np.ndarray,
    alignment: str,
    *,
    others_weight: float,
    predicted: np.ndarray | None = None,
) -> np.ndarray | None:
    """Returns the class prior of the pool by the option `alignment`, `[K]`; `None` for none.

    The distance of the pool's prior from a teacher's first predictions is estimated from each teacher alone: with the
    embedding signals, which all teachers share, the teachers would seem to agree. The larger the weight of
    other members, the smaller the correction.

    Args:
        ensemble (`EnsemblePrediction`): Prediction of teachers that have learned from `labels`, or from a part of them
            with the same prior.
        labels (`Sequence[int]` or `np.ndarray`): Labels of the labeled rows.
        alignment (`str`): Value of `distribution_alignment` in `SelfTrainingConfig`.
        others_weight (`float`): Weight of the other members of the ensemble than the teachers, in [0, 1].
        predicted (`np.ndarray`, *optional*): Classes that the ensemble predicts, `[N]`. Default: the most probable
            ones.
    """
    if alignment == "none":
        return None
    prior = prior_of_labels(labels, ensemble.teacher_probs.shape[-1])
    if alignment == "labeled":
        return prior
    if alignment == "predicted":
        return broadcast(predicted_prior(ensemble.combined.predicted if predicted is None else predicted, prior))
    as_found = _mean_prior(ensemble.combined.deterministic_probs)
    changes = [estimate_prior(probs, prior) / _mean_prior(probs) for probs in ensemble.teacher_probs]
    estimates = [as_found * change ** (1 - others_weight) for change in changes]
    return broadcast(consensus_prior(estimates, as_found, ensemble.teacher_probs.shape[1]))


def _mean_prior(probs: np.ndarray) -> np.ndarray:
    """Returns the mean of probabilities `[N, K]` over the rows, `[K]`, all positive."""
    return np.maximum(probs.mean(axis=0, dtype=np.float64), 1e-12)


def sharpened(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Returns p^(1/T), normalised (Berthelot et al. 2019, "MixMatch", equation 7).

    Args:
        probs (`np.ndarray`): Probabilities, `[S, K]`.
        temperature (`float`): Temperature T, above 0; 1 changes nothing.
    """
    if temperature == 1.0:
        return probs
    return softmax(np.log(np.maximum(probs, 1e-30)) / temperature, axis=-1).astype(probs.dtype)
