"""Spreads labels along the edges of a sparse nearest-neighbour graph over embeddings.

N rows, D dimensions, K classes, k neighbours a row. Labels are `[N]` int, -1 where unlabeled. Memory is O(N k + N K)
numbers in addition to one float32 copy of the embeddings. Above `EXACT_ROWS` rows, the time to find the neighbours
grows as N log N. All randomness comes from `seed`: the same seed gives the same graph.

On some backbones near rows share a topic and not a class. So the weight of the graph is measured: `graph_trust`
estimates its accuracy on held-out labeled rows, `GraphTrust.weight` compares that with the teacher's accuracy on
held-out labeled rows, and `agreement_weights` uses the graph in proportion to that weight.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import reverse_cuthill_mckee

from hfssl.functional.nearest_neighbors import nearest_neighbors

__all__ = [
    "GraphTrust",
    "SpreadLabels",
    "agreement_weights",
    "graph_trust",
    "knn_graph",
    "normalize_graph",
    "spread_labels",
]

logger = logging.getLogger(__name__)

CLASSES_AT_ONCE = 16  # classes in one spreading pass; keeps the working arrays small where K is large


# --- the graph ---------------------------------------------------------------------------------------------------


def knn_graph(
    embeddings: np.ndarray, k: int = 10, *, gamma: float = 3.0, search: str = "auto", seed: int = 0
) -> sparse.csr_array:
    """Builds W = A + A', A_ij = max(0, cos(i, j))**gamma for the k nearest j of i (Iscen et al. 2019, section 3.2).

    Args:
        embeddings (`np.ndarray`): `[N, D]`, any scale. A row of zeros has no neighbours.
        k (`int`, defaults to `10`): Neighbours per row, at most N - 1. A row may have more edges, since W is
            symmetric.
        gamma (`float`, defaults to `3.0`): Exponent of the cosine; the default is the paper's.
        search (`str`, defaults to `"auto"`): A key of `hfssl.functional.nearest_neighbors.SEARCHES`. `"auto"` is exact
            up to 10,000 rows; above that it uses faiss where it is installed, else cells from scikit-learn's k-means.
        seed (`int`, defaults to `0`): Random seed of the approximate searches.

    Returns:
        `[N, N]` float64, symmetric, no self loops, at most 2 N k entries, each above 0 and at most 2.

    Raises:
        DataError: if an embedding is not finite.
        ValueError: if `embeddings` is not a matrix, `k` is below 1, or `search` is unknown.
    """
    neighbors, cosines = nearest_neighbors(embeddings, k, search=search, seed=seed)
    rows, count = neighbors.shape
    edges = np.clip(cosines, 0.0, 1.0, dtype=np.float64) ** gamma
    starts = np.arange(0, rows * count + 1, count) if count else np.zeros(rows + 1, dtype=np.int64)
    graph = sparse.csr_array((edges.ravel(), neighbors.ravel(), starts), shape=(rows, rows))
    graph = sparse.csr_array(graph + graph.T)
    graph.eliminate_zeros()
    if rows > 1 and not graph.nnz:
        logger.warning("No two of %d embeddings are alike (no cosine above 0): the graph has no edges.", rows)
    return graph


def normalize_graph(graph: sparse.csr_array) -> sparse.csr_array:
    """Returns S = D^-1/2 W D^-1/2, D = diagonal of row sums (Zhou et al. 2004). Rows without edges stay empty.

    Args:
        graph (`sparse.csr_array`): `[N, N]`, symmetric, no negative entries.

    Returns:
        `[N, N]`, symmetric, eigenvalues between -1 and 1.
    """
    degrees = np.asarray(graph.sum(axis=1)).ravel()
    scale = sparse.diags_array(np.divide(1.0, np.sqrt(degrees), out=np.zeros(len(degrees)), where=degrees > 0))
    return sparse.csr_array(scale @ graph @ scale)


# --- spreading ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SpreadLabels:
    """Holds the spread labels of every row. The probabilities of a labeled row may contradict its given label."""

    probs: np.ndarray  # [N, K], rows sum to 1; uniform where no label reaches
    certainty: np.ndarray  # [N], 1 - H / log K: 0 for uniform (so also where no label reaches), 1 for one class only
    reached: np.ndarray  # [N] bool, whether any labeled row's mass arrives


def spread_labels(
    graph: sparse.csr_array,
    labels: np.ndarray,
    num_classes: int,
    *,
    alpha: float = 0.99,
    class_prior: Sequence[float] | np.ndarray | None = None,
    tolerance: float = 1e-8,
) -> SpreadLabels:
    """Computes the fixed point of F <- alpha S F + (1 - alpha) Y (Zhou et al. 2004) and scales its rows to sum to 1.

    Args:
        graph (`sparse.csr_array`): `[N, N]` from `knn_graph`.
        labels (`np.ndarray`): `[N]` int, -1 = unlabeled.
        num_classes (`int`): Number of classes K, at least 2. A class without labeled rows gets probability 0 wherever
            a label reaches.
        alpha (`float`, defaults to `0.99`): Weight of the neighbours against a row's own label, between 0 and 1;
            larger values spread labels further.
        class_prior (`Sequence[float] | np.ndarray`, *optional*): `[K]`, class prior of the unlabeled rows, for class
            mass normalization (Zhu et al. 2003, equation 9): p_ic <- p_ic prior_c / mean_i p_ic. Without it there is
            no normalization.
        tolerance (`float`, defaults to `1e-8`): Largest error of F, relative to its largest possible value. Rows whose
            mass is smaller than the error count as not reached.

    Raises:
        ValueError: if the labels do not fit the graph or the classes, if no row is labeled, or if `alpha`,
            `num_classes` or `class_prior` is out of range.
    """
    labels = _checked_labels(graph, labels, num_classes)
    if not (labels >= 0).any():
        raise ValueError(f"Expected at least one labeled row (label >= 0), got {len(labels)} unlabeled ones.")
    prior = _checked_prior(class_prior, num_classes)
    normalized, order = _near_rows_together(normalize_graph(graph))
    ordered = _spread(normalized, labels[order], num_classes, alpha, prior, tolerance)
    place = np.argsort(order)
    return SpreadLabels(ordered.probs[place], ordered.certainty[place], ordered.reached[place])


def _near_rows_together(normalized: sparse.csr_array) -> tuple[sparse.csr_array, np.ndarray]:
    """Reorders the graph so that neighbouring rows are near each other in memory; also returns the order `[N]`.

    Sparse products then read mostly from the processor's caches (Cuthill & McKee 1969).
    """
    order = reverse_cuthill_mckee(normalized, symmetric_mode=True)
    return sparse.csr_array(normalized[order][:, order]), order


def _spread(
    normalized: sparse.csr_array,
    labels: np.ndarray,
    num_classes: int,
    alpha: float,
    class_prior: np.ndarray | None,
    tolerance: float,
) -> SpreadLabels:
    steps = _steps(alpha, tolerance)
    probs = np.empty((len(labels), num_classes))
    for first in range(0, num_classes, CLASSES_AT_ONCE):
        classes = np.arange(first, min(first + CLASSES_AT_ONCE, num_classes))
        probs[:, classes] = _fixed_point(normalized, labels, classes, alpha, steps)
    np.maximum(probs, 0.0, out=probs)  # rounding, where next to nothing arrives
    mass = probs.sum(axis=1)
    # Column c's error is at most tolerance |F_c| <= tolerance sqrt(labels of c); summed over c by Cauchy-Schwarz.
    reached = mass > tolerance * math.sqrt(num_classes * np.count_nonzero(labels >= 0))
    probs[reached] /= mass[reached, None]
    probs[~reached] = 1.0 / num_classes
    if class_prior is not None:
        _normalize_class_mass(probs, reached, labels, class_prior)
    # Row by row sums of p log p with 0 log 0 = 0, without a second [N, K] array.
    entropy = np.zeros(len(labels))
    for column in probs.T:
        entropy -= column * np.log(np.where(column > 0, column, 1.0))
    certainty = np.where(reached, np.clip(1.0 - entropy / math.log(num_classes), 0.0, 1.0), 0.0)
    return SpreadLabels(probs, certainty, reached)


def _steps(alpha: float, tolerance: float) -> int:
    """Returns the steps after which the iteration's error is below `tolerance`: 2 rate**steps <= tolerance."""
    if not (0.0 < alpha < 1.0 and 0.0 < tolerance < 1.0):
        raise ValueError(f"alpha and tolerance must lie between 0 and 1, got {alpha} and {tolerance}.")
    rate = alpha / (1.0 + math.sqrt(1.0 - alpha**2))
    return math.ceil(math.log(tolerance / 2.0) / math.log(rate))


def _fixed_point(
    normalized: sparse.csr_array, labels: np.ndarray, classes: np.ndarray, alpha: float, steps: int
) -> np.ndarray:
    """Returns (1 - alpha) (I - alpha S)^-1 Y for these classes, `[N, len(classes)]`, by sparse products only.

    Chebyshev's semi-iteration (Golub & Varga 1961) on the fixed-point step. The eigenvalues of alpha S lie in [-alpha,
    alpha], so the best mix of a step with the result before the last is known in advance. At alpha = 0.99 the
    iteration takes 136 products for 1e-8 where plain repetition takes 1,833. Rows that no label reaches stay exactly
    0.
    """
    rows = np.flatnonzero(np.isin(labels, classes))
    columns = labels[rows] - classes[0]
    before = np.zeros((len(labels), len(classes)))
    now = before.copy()
    now[rows, columns] = 1.0 - alpha
    mix = 2.0 / (2.0 - alpha**2)
    for _ in range(1, steps):
        after = normalized @ now
        after *= alpha
        after[rows, columns] += 1.0 - alpha
        after -= before
        after *= mix
        after += before
        before, now = now, after
        mix = 1.0 / (1.0 - alpha**2 * mix / 4.0)
    return now


def _normalize_class_mass(probs: np.ndarray, reached: np.ndarray, labels: np.ndarray, class_prior: np.ndarray) -> None:
    """Applies class mass normalization to the reached rows, in place."""
    counted = reached & (labels < 0)
    if not counted.any():
        return
    mass = probs[counted].mean(axis=0)
    scaled = probs[reached] * np.divide(class_prior, mass, out=np.zeros(len(mass)), where=mass > 0)
    totals = scaled.sum(axis=1, keepdims=True)
    # A row with probability only for classes of prior 0 stays unchanged.
    probs[reached] = np.where(totals > 0, scaled / np.where(totals > 0, totals, 1.0), probs[reached])


def _checked_labels(graph: sparse.csr_array, labels: np.ndarray, num_classes: int) -> np.ndarray:
    labels = np.asarray(labels)
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
    if graph.shape != (len(labels), len(labels)):
        raise ValueError(f"Expected one label a row of the graph {graph.shape}, got {len(labels)} labels.")
    if len(labels) and not (labels.min() >= -1 and labels.max() < num_classes):
        raise ValueError(
            f"labels must lie between -1 (unlabeled) and {num_classes - 1}, got {labels.min()} to {labels.max()}."
        )
    return labels.astype(np.int64)


def _checked_prior(class_prior: Sequence[float] | np.ndarray | None, num_classes: int) -> np.ndarray | None:
    if class_prior is None:
        return None
    prior = np.asarray(class_prior, dtype=np.float64)
    if prior.shape != (num_classes,) or not (np.isfinite(prior).all() and prior.min() >= 0 and prior.sum() > 0):
        raise ValueError(f"class_prior must hold {num_classes} shares, none negative, not all 0; got {class_prior}.")
    return prior / prior.sum()


# --- accuracy of the graph ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GraphTrust:
    """Holds the result of spreading on labeled rows that were held out."""

    rows: np.ndarray  # [L], row numbers of the labeled rows
    correct: np.ndarray  # [L], 1 right, 0 wrong; 1/m where m classes tie and the right one is among them
    chance: float  # accuracy of always naming the most frequent label

    @property
    def accuracy(self) -> float:
        """Returns the share of the L labeled rows that spread labels predict correctly when held out, in [0, 1]."""
        return float(self.correct.mean())

    def weight(self, teacher_accuracy: float | None = None, margin: float = 0.1) -> float:
        """Returns the graph's weight in [0, 1]: its skill above chance, or 0 where it is much worse than the teacher.

        The weight is (low - chance) / (1 - chance), at least 0. `low` is the lower end of Wilson's interval of the
        accuracy (1927, z = 1), since a high accuracy on few labeled rows is weak evidence.

        Args:
            teacher_accuracy (`float`, *optional*): Accuracy of the teacher on held-out labeled rows, preferably the
                same ones, in [0, 1]. Without it, the graph is not compared with the teacher.
            margin (`float`, defaults to `0.1`): Largest accepted difference of the accuracies; a graph that is worse
                than the teacher by more gets weight 0.
        """
        accuracy, count = self.accuracy, len(self.rows)
        if teacher_accuracy is not None and accuracy < teacher_accuracy - margin:
            return 0.0
        spread = math.sqrt(accuracy * (1.0 - accuracy) / count + 0.25 / count**2)
        low = (accuracy + 0.5 / count - spread) / (1.0 + 1.0 / count)
        return max(0.0, (low - self.chance) / (1.0 - self.chance)) if self.chance < 1.0 else 0.0


def graph_trust(
    graph: sparse.csr_array,
    labels: np.ndarray,
    num_classes: int,
    *,
    folds: int = 5,
    alpha: float = 0.99,
    class_prior: Sequence[float] | np.ndarray | None = None,
    seed: int = 0,
) -> GraphTrust:
    """Holds out each fold of the labeled rows in turn, spreads the other labels, and counts correct predictions.

    The folds are stratified: a class with at least `folds` labeled rows loses about the same share in each. The only
    labeled row of a class is always counted as wrong. No label outside `labels` is needed; the cost is that of `folds`
    spreadings. The estimate is slightly pessimistic, since each fold spreads fewer labels.

    Args:
        graph, labels, num_classes, alpha, class_prior: as in `spread_labels`.
        folds (`int`, defaults to `5`): Number of folds, at least 2; one fold per labeled row where there are fewer
            rows.
        seed (`int`, defaults to `0`): Random seed of the folds.
    """
    labels = _checked_labels(graph, labels, num_classes)
    prior = _checked_prior(class_prior, num_classes)
    rows = np.flatnonzero(labels >= 0)
    if folds < 2 or not len(rows):
        raise ValueError(f"Expected at least 2 folds and a labeled row, got {folds} folds and {len(rows)} rows.")
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    by_class = shuffled[np.argsort(labels[rows][shuffled], kind="stable")]
    fold = np.empty(len(rows), dtype=np.int64)
    fold[by_class] = np.arange(len(rows)) % folds
    normalized, order = _near_rows_together(normalize_graph(graph))
    place = np.argsort(order)
    correct = np.empty(len(rows))
    for held_out in (np.flatnonzero(fold == number) for number in range(min(folds, len(rows)))):
        shown = labels.copy()
        shown[rows[held_out]] = -1
        probs = _spread(normalized, shown[order], num_classes, alpha, prior, 1e-8).probs[place[rows[held_out]]]
        ties = probs >= probs.max(axis=1, keepdims=True) - 1e-9
        correct[held_out] = ties[np.arange(len(held_out)), labels[rows[held_out]]] / ties.sum(axis=1)
    return GraphTrust(rows, correct, float(np.bincount(labels[rows]).max() / len(rows)))


def agreement_weights(teacher_probs: np.ndarray, graph_probs: np.ndarray, trust: float) -> np.ndarray:
    """Returns weights of the teacher's pseudo-labels, (1 - trust) + trust a, larger where the graph agrees.

    With t the teacher's class and g the graph's probabilities, a = g_t / (g_t + max of g over the other classes): 1
    where the graph is certain of t, 1/2 where t ties with another class, 0 where t has probability 0. Spread labels
    are flat (the largest of K probabilities is often little above 1/K), so the ratio is used and not the probability.

    Args:
        teacher_probs (`np.ndarray`): `[N, K]` probabilities of the teacher.
        graph_probs (`np.ndarray`): `[N, K]` spread labels, `SpreadLabels.probs`.
        trust (`float`): Weight of the graph in [0, 1], from `GraphTrust.weight`. At 0 all weights are 1.

    Returns:
        `[N]`, between 1 - trust and 1.
    """
    if not 0.0 <= trust <= 1.0:
        raise ValueError(f"trust must lie in [0, 1], got {trust}.")
    if teacher_probs.shape != graph_probs.shape:
        raise ValueError(f"Expected probabilities of one shape, got {teacher_probs.shape} and {graph_probs.shape}.")
    label = np.asarray(teacher_probs).argmax(axis=1)[:, None]
    others = np.array(graph_probs, dtype=np.float64)
    for_it = np.take_along_axis(others, label, axis=1)[:, 0]
    np.put_along_axis(others, label, -1.0, axis=1)
    against_it = others.max(axis=1)
    total = for_it + against_it
    agreement = np.divide(for_it, total, out=np.full(len(total), 0.5), where=total > 0)
    return (1.0 - trust) + trust * agreement
