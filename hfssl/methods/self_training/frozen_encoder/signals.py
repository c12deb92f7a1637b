"""What the embeddings of the untrained backbone say of the pool: second opinions on labels, and rows out of place.

The backbone's, not the teacher's: in the teacher's space each labeled row lies where its label is, so that neither the
trust in the graph and in the classes' names nor the p-values of novelty could be measured on these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from scipy.special import softmax
from sklearn.preprocessing import normalize
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfssl.evaluation.out_of_distribution import is_ood, ood_rows
from hfssl.evaluation.temperature_scaling import fit_temperature
from hfssl.functional.label_spreading import agreement_weights, graph_trust, knn_graph, spread_labels
from hfssl.functional.nearest_neighbors import nearest_neighbors
from hfssl.inference.scoring import layer_embeddings
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.label_names import multiplied, name_texts, weigh_names
from hfssl.methods.self_training.frozen_encoder.layer_probe import fit_layer_probe, stacking_weights, upper_layers
from hfssl.runtime.files import read_arrays, write_arrays

__all__ = ["Neighborhood", "asks_around", "embed_layers", "find_neighborhood", "probe_say"]

# Rows that the probe and the teachers are given for a start. On rows cut off the training parts of four data sets, 40%
# was as good as weights by evidence alone on average, and at its worst far better (benchmarks/NOTES.md, 2026-11-25).
PRIOR_ROWS = (4.0, 6.0)
NEIGHBORS = 10  # a row; 5 to 40 do the same


@dataclass(frozen=True)
class Neighborhood:
    """What the embeddings of the untrained backbone say of the pool.

    Attributes:
        probs: `[N, K]` labels spread over the graph; `None` where no graph was asked for.
        certainty: `[N]`, 0 where no label reaches, 1 for one class only; `None` likewise.
        trust: The graph's say in [0, 1], from the labeled rows among themselves.
        novel: `[N]` bool, rows unlike all labeled ones.
        name_strength: How far the classes' names are trusted; 0 where they say nothing or were not asked.
        name_log_odds: `[N, K]`, see `NamePrior`; `None` likewise, and where the probe has them in its own say.
        probe_probs: `[N, K]` by logistic regression on the labeled rows' embeddings (see
            `layer_probe`); `None` where it was not asked.
        probe_held_out: `[V, K]`, the same of held-out rows; `None` likewise.
        neighbors: `[N, k]` rows of the pool that are nearest to each; `None` where they were not asked.
    """

    probs: np.ndarray | None
    certainty: np.ndarray | None
    trust: float
    novel: np.ndarray
    name_strength: float = 0.0
    name_log_odds: np.ndarray | None = None
    probe_probs: np.ndarray | None = None
    probe_held_out: np.ndarray | None = None
    neighbors: np.ndarray | None = None

    @property
    def alarming(self) -> bool:
        """Whether so many rows are novel that the pool itself is doubtful."""
        return is_ood(self.novel)

    def weights(self, teacher_probs: np.ndarray, args: SelfTrainingConfig) -> torch.Tensor:
        """`[N]` factors on the weights of the pseudo-labels, by `args.label_spreading` and `args.ood_filter`."""
        factors = np.ones(len(self.novel))
        if args.label_spreading == "agreement":
            factors *= agreement_weights(teacher_probs, self.probs, self.trust)
        if args.label_spreading == "certainty":
            factors *= (1 - self.trust) + self.trust * self.certainty
        if args.ood_filter and self.alarming and not self.novel.all():
            factors *= ~self.novel
        return torch.from_numpy(factors)

    def joined(self, teacher_probs: np.ndarray, probe_weight: float) -> np.ndarray:
        """A teacher's `[N, K]` probabilities, mixed with those of the probe; or multiplied by what the names say.

        The strength of the names is chosen beside the probe. A teacher that has learned far more than the probe would
        be misled by them: codes as names (ABBR, DESC) took 4 points from teachers on trec6.
        """
        if self.probe_probs is not None:
            return ((1 - probe_weight) * teacher_probs + probe_weight * self.probe_probs).astype(teacher_probs.dtype)
        return teacher_probs if self.name_log_odds is None else multiplied(teacher_probs, self.name_log_odds)

    def smoothed(self, probs: np.ndarray, share: float) -> np.ndarray:
        """`[N, K]`, in which a row's nearest neighbours have so large a share of the say.

        One step of label spreading (Zhou et al. 2004, "Learning with local and global consistency", section 2), which
        starts from labels of all rows and weighs k neighbours alike. To the end it would make topics of everything: on
        trec6 it took 20 points where one step took none (benchmarks/NOTES.md, 2026-11-25).
        """
        if self.neighbors is None or share == 0:
            return probs
        return ((1 - share) * probs + share * probs[self.neighbors].mean(axis=1)).astype(probs.dtype)

    def save(self, path: Path) -> None:
        """Writes an `.npz` file, whole or not at all."""
        write_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> Neighborhood | None:
        """Reads what `save` wrote; `None` where there is no such file."""
        if not path.exists():
            return None
        found = read_arrays(path)
        scalars = {name: float(found.pop(name)) for name in ("trust", "name_strength")}
        return cls(**{"probs": None, "certainty": None} | found | scalars)


def asks_around(args: SelfTrainingConfig) -> bool:
    """Whether any setting asks what the backbone's embeddings say of the pool."""
    votes = args.label_name_prior or args.backbone_probe or args.knn_smoothing > 0
    return votes or args.ood_filter or args.label_spreading != "none"


def probe_say(probe: np.ndarray, teachers: np.ndarray, labels: np.ndarray) -> float:
    """The share in the joined labels that the probe gets beside the teachers, in (0, 1), given held-out labels.

    The mixture of the two under which these labels are the likeliest, with `PRIOR_ROWS` to start from (see
    `stacking_weights`). How likely the probe is the *better* of the two (Bayesian model averaging) is another
    question, whose answer 18 labels drove to 0.9 where the probe was 9 points worse. Each model gets its own
    temperature before: one that was trained to set the few labels apart is too sure of itself, which says nothing
    about whether it is right.

    Args:
        probe: `[V, K]` probabilities.
        teachers: `[V, K]`, their mean.
        labels: `[V]`; may be empty.
    """
    calibrated = np.stack([probe, teachers])
    if len(labels):
        scores = np.log(np.maximum(calibrated, 1e-12))
        calibrated = softmax([rows / fit_temperature(rows, labels) for rows in scores], axis=-1)
    return float(stacking_weights(calibrated, labels, PRIOR_ROWS)[0])


def embed_layers(
    encoder: PreTrainedModel,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    probe: bool,
    bf16: bool = False,
    progress: str | None = None,
) -> np.ndarray:
    """`[H, N, D]` embeddings of length 1 by the layers that are asked: the last one, for the probe others before it.

    Args:
        encoder: with the backbone's own weights.
        rows: N tokenized rows; N may be 0.
        tokenizer: pads the batches.
        probe: whether there will be a probe.
        bf16: whether the encoder computes in it, as in training.
        progress: text beside a progress bar; `None` shows none.
    """
    layers = upper_layers(encoder.config.get_text_config().num_hidden_layers) if probe else [-1]
    with torch.autocast(encoder.device.type, torch.bfloat16, enabled=bf16):
        found = layer_embeddings(encoder, rows, tokenizer, layers, progress=progress)
    return np.stack([normalize(layer) if len(rows) else layer for layer in found])


def find_neighborhood(
    encoder: PreTrainedModel,
    labeled: Dataset,
    pool: np.ndarray,
    tokenizer: PreTrainedTokenizerBase,
    *,
    num_classes: int,
    graph: bool,
    label_names: Sequence[str] | None = None,
    probe: bool = False,
    held_out: Dataset | None = None,
    neighbors: bool = False,
    bf16: bool = False,
    seed: int,
    title: str | None = None,
) -> Neighborhood:
    """Embeds the labeled rows, and asks the pool's neighbours and the classes' names.

    Args:
        encoder: with the backbone's own weights.
        labeled: tokenized rows with `labels`.
        pool: `[H, N, D]`, the pool's embeddings by `embed_layers`.
        tokenizer: pads the batches.
        num_classes: K.
        graph: whether to spread labels over a nearest-neighbour graph.
        label_names: K names to be compared with the texts; `None` leaves them out.
        probe: whether logistic regression on the labeled rows is asked.
        held_out: V tokenized rows that the probe is asked of, too.
        neighbors: whether the nearest rows of the pool are found for each of them.
        bf16: whether the encoder computes in it, as in training.
        seed: of the graph.
        title: beside the progress bars; `None` shows none.
    """

    def embedded(rows: Dataset, progress: str | None = None) -> np.ndarray:
        return embed_layers(encoder, rows, tokenizer, probe=probe, bf16=bf16, progress=progress)

    known_layers = embedded(labeled, None if title is None else f"{title}: embedding the labeled rows")
    others = embedded(labeled.select([]) if held_out is None else held_out)
    known, unknown = known_layers[-1], pool[-1]
    labels = np.asarray(labeled["labels"][:])
    found = {"probs": None, "certainty": None, "trust": 0.0, "novel": ood_rows(known, unknown)}
    if graph:
        edges = knn_graph(np.concatenate([known, unknown]), seed=seed)
        seeds = np.concatenate([labels, np.full(len(unknown), -1)])
        spread = spread_labels(edges, seeds, num_classes)
        found |= {"probs": spread.probs[len(known) :], "certainty": spread.certainty[len(known) :]}
        found["trust"] = graph_trust(edges, seeds, num_classes).weight()
    if (texts := None if label_names is None else name_texts(label_names)) is not None:
        names = embedded(Dataset.from_dict(dict(tokenizer(texts, truncation=True))))[-1]
        prior = weigh_names(known, labels, unknown, names, others[-1], seed=seed)
        found |= {"name_strength": prior.strength, "name_log_odds": prior.log_odds if prior.strength > 0 else None}
    if neighbors and len(unknown) > 1:
        found["neighbors"], _ = nearest_neighbors(unknown, NEIGHBORS, seed=seed)
    if probe:
        fitted = fit_layer_probe(known_layers, labels, num_classes, seed=seed)
        asked = {"probe_probs": fitted.probs(pool), "probe_held_out": fitted.probs(others)}
        if found.pop("name_log_odds", None) is not None:
            said = (prior.log_odds, prior.held_out)
            asked = {name: multiplied(probs, odds) for (name, probs), odds in zip(asked.items(), said, strict=True)}
        found |= asked
    return Neighborhood(**found)
