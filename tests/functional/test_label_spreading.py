"""The graph: its weights, spreading against closed forms, the trust in it, and invalid input."""

from __future__ import annotations

import logging
import math
import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from hfssl.errors import DataError
from hfssl.functional.label_spreading import (
    GraphTrust,
    agreement_weights,
    graph_trust,
    knn_graph,
    normalize_graph,
    spread_labels,
)
from tests.helpers.blobs import SEARCHES, blobs


def edges(rows: int, weights: dict[tuple[int, int], float]) -> sparse.csr_array:
    """An undirected graph from the weights of its edges."""
    dense = np.zeros((rows, rows))
    for (i, j), weight in weights.items():
        dense[i, j] = dense[j, i] = weight
    return sparse.csr_array(dense)


def closed_form(graph: sparse.csr_array, labels: np.ndarray, num_classes: int, alpha: float) -> np.ndarray:
    """(1 - alpha) (I - alpha S)^-1 Y by a dense inverse."""
    normalized = normalize_graph(graph).toarray()
    onehot = (labels[:, None] == np.arange(num_classes)).astype(float)
    return (1 - alpha) * np.linalg.inv(np.eye(len(labels)) - alpha * normalized) @ onehot


def some_labeled(classes: np.ndarray, per_class: int, seed: int = 0) -> np.ndarray:
    """`classes`, with all but `per_class` rows of each class unlabeled."""
    generator = np.random.default_rng(seed)
    labels = np.full(len(classes), -1)
    for k in np.unique(classes):
        labels[generator.choice(np.flatnonzero(classes == k), per_class, replace=False)] = k
    return labels


# --- the graph ---------------------------------------------------------------------------------------------------


def test_weights_by_hand_whatever_the_lengths_of_the_vectors():
    # At 0, 60 and 90 degrees: cosines 1/2, 3**.5/2 and 0. The nearest of 0 is 1, of 1 is 2, of 2 is 1.
    angles = np.deg2rad([0.0, 60.0, 90.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[1.0], [7.0], [0.02]]
    wanted = np.zeros((3, 3))
    wanted[0, 1] = wanted[1, 0] = 0.5**3
    wanted[1, 2] = wanted[2, 1] = 2 * 0.75**1.5
    assert np.allclose(knn_graph(vectors, 1).toarray(), wanted, atol=1e-6)
    wanted[0, 1] = wanted[1, 0] = 0.5
    wanted[1, 2] = wanted[2, 1] = 2 * 0.75**0.5
    assert np.allclose(knn_graph(vectors, 1, gamma=1.0).toarray(), wanted, atol=1e-6)


@pytest.mark.parametrize("search", SEARCHES)
def test_every_search_gives_a_symmetric_sparse_graph_without_self_loops(search):
    vectors, _ = blobs(1500, 6)
    graph = knn_graph(vectors, 5, search=search)
    assert (abs(graph - graph.T) > 0).nnz == 0
    assert not graph.diagonal().any()
    assert graph.nnz <= 2 * 1500 * 5
    assert graph.data.min() > 0
    assert graph.data.max() <= 2
    assert np.diff(graph.indptr).min() >= 5


def test_small_pools_are_searched_exactly():
    vectors, _ = blobs(300, 5)
    assert np.array_equal(knn_graph(vectors, 5).toarray(), knn_graph(vectors, 5, search="exact").toarray())


def test_memory_grows_with_the_rows_and_not_with_their_square():
    vectors, classes = blobs(8000, 20)
    labels = some_labeled(classes, 3)
    tracemalloc.start()
    spread_labels(knn_graph(vectors, 5, search="cells"), labels, 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8000**2  # bytes, a quarter of a dense float32 matrix; most of it one block of similarities


# --- spreading ---------------------------------------------------------------------------------------------------

# Three rows in a line: 0 --3-- 1 --1-- 2. Degrees 3, 4, 1, so S_01 = 3/12**.5 and S_12 = 1/2. At alpha = 1/2 and with
# a = alpha S_01 = 3**.5/4, b = alpha S_12 = 1/4, a label on row 0 gives F_1 = a/2 / (1 - a^2 - b^2) = 3**.5/6 and
# F_0 = 1/2 + a F_1 = 5/8, F_2 = b F_1 = 3**.5/24; one on row 2 gives F_1 = b/2 / (3/4) = 1/6, F_0 = a/6, F_2 = 13/24.
LINE = edges(3, {(0, 1): 3.0, (1, 2): 1.0})
LINE_LABELS = np.array([0, -1, 1])
ROOT = math.sqrt(3)
LINE_MASS = np.array([[5 / 8, ROOT / 24], [ROOT / 6, 1 / 6], [ROOT / 24, 13 / 24]])


def test_normalized_by_hand():
    wanted = [[0, ROOT / 2, 0], [ROOT / 2, 0, 0.5], [0, 0.5, 0]]
    assert np.allclose(normalize_graph(LINE).toarray(), wanted)
    assert np.array_equal(normalize_graph(edges(2, {})).toarray(), np.zeros((2, 2)))


def test_spread_by_hand():
    result = spread_labels(LINE, LINE_LABELS, 2, alpha=0.5)
    assert np.allclose(result.probs, LINE_MASS / LINE_MASS.sum(axis=1, keepdims=True))
    share = ROOT / (1 + ROOT)
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert result.certainty[1] == pytest.approx(1 - entropy / math.log(2))
    assert result.reached.all()


def test_class_mass_by_hand():
    # Row 1 is all there is of the unlabeled rows, so its mean is itself: it must come out as the prior.
    result = spread_labels(LINE, LINE_LABELS, 2, alpha=0.5, class_prior=[3, 1])
    assert np.allclose(result.probs[1], [0.75, 0.25])
    plain = spread_labels(LINE, LINE_LABELS, 2, alpha=0.5).probs
    odds = plain[0, 0] / plain[0, 1] * (0.75 / plain[1, 0]) / (0.25 / plain[1, 1])
    assert result.probs[0, 0] / result.probs[0, 1] == pytest.approx(odds)


@pytest.mark.parametrize("alpha", [0.1, 0.9, 0.99, 0.999])
def test_spread_is_the_closed_form(alpha):
    vectors, classes = blobs(200, 4)
    graph, labels = knn_graph(vectors, 4), some_labeled(classes, 3)
    mass = closed_form(graph, labels, 4, alpha)
    result = spread_labels(graph, labels, 4, alpha=alpha)
    assert np.allclose(
        result.probs[result.reached], (mass / mass.sum(axis=1, keepdims=True))[result.reached], atol=1e-5
    )
    assert np.array_equal(result.reached, mass.sum(axis=1) > 1e-8 * math.sqrt(4 * 12))


def test_many_classes_are_spread_in_parts_with_the_same_result():
    vectors, classes = blobs(400, 37)
    graph, labels = knn_graph(vectors, 20), some_labeled(classes, 1)
    mass = closed_form(graph, labels, 37, 0.9)
    assert np.allclose(spread_labels(graph, labels, 37, alpha=0.9).probs, mass / mass.sum(axis=1, keepdims=True))


def test_rows_that_no_label_reaches_are_uniform_and_certainty_0():
    graph = edges(6, {(0, 1): 1.0, (2, 3): 1.0})  # 4 and 5 have no edge at all
    result = spread_labels(graph, np.array([1, -1, -1, -1, -1, 2]), 4, class_prior=[0.1, 0.2, 0.3, 0.4])
    assert result.reached.tolist() == [True, True, False, False, False, True]
    assert np.array_equal(result.probs[2:5], np.full((3, 4), 0.25))
    assert np.array_equal(result.certainty[2:5], np.zeros(3))
    assert np.array_equal(result.probs[1], [0, 1, 0, 0])
    assert result.certainty[1] == 1


def test_mass_too_small_to_compute_is_no_prediction_rather_than_noise():
    # At alpha = 1/2 mass falls by 3.7 a step along a line of equal edges: below 1e-8 from about row 15 on.
    line = edges(60, {(i, i + 1): 1.0 for i in range(59)})
    labels = np.full(60, -1)
    labels[:2] = 0, 1
    result = spread_labels(line, labels, 2, alpha=0.5)
    near = closed_form(line, labels, 2, 0.5)[:8]
    assert np.allclose(result.probs[:8], near / near.sum(axis=1, keepdims=True), atol=1e-3)
    assert not result.reached[20:].any()
    assert np.array_equal(result.probs[20:], np.full((40, 2), 0.5))


@pytest.mark.parametrize("class_prior", [None, [0.2, 0.3, 0.5]])
def test_a_class_without_labeled_rows_gets_nothing(class_prior):
    vectors, classes = blobs(100, 2)
    result = spread_labels(knn_graph(vectors, 5), some_labeled(classes, 3), 3, class_prior=class_prior)
    assert not result.probs[result.reached, 2].any()
    assert np.allclose(result.probs.sum(axis=1), 1)
    assert np.isfinite(result.certainty).all()


def test_a_prior_of_nothing_but_an_unlabeled_class_changes_nothing():
    plain = spread_labels(LINE, LINE_LABELS, 3)
    assert np.allclose(spread_labels(LINE, LINE_LABELS, 3, class_prior=[0, 0, 1]).probs, plain.probs)


def test_labels_follow_their_clusters():
    vectors, classes = blobs(2000, 5)
    result = spread_labels(knn_graph(vectors), some_labeled(classes, 2), 5)
    assert (result.probs.argmax(axis=1) == classes).mean() > 0.99


# --- is the graph to be believed? --------------------------------------------------------------------------------


def test_a_graph_of_classes_is_trusted_and_one_of_topics_is_not():
    vectors, topics = blobs(1500, 6)
    graph = knn_graph(vectors)
    right = graph_trust(graph, some_labeled(topics, 10), 6)
    assert right.accuracy == 1
    assert right.weight() > 0.9
    classes = np.random.default_rng(1).integers(0, 6, 1500)  # any class may talk about any topic
    wrong = graph_trust(graph, some_labeled(classes, 10), 6)
    assert wrong.accuracy < 0.4
    assert wrong.weight() < 0.15
    assert wrong.weight(teacher_accuracy=0.69) == 0


def test_trust_by_hand():
    # Wilson, z = 1, of 3 right in 4: (.75 + 1/8 - (.75 .25/4 + 1/64)**.5) / 1.25 = 1/2; of 4 in 4: 4/5.
    rows = np.arange(4)
    assert GraphTrust(rows, np.array([1, 1, 1, 0]), 0.25).weight() == pytest.approx(1 / 3)
    assert GraphTrust(rows, np.array([1, 1, 1, 0]), 0.5).weight() == 0
    assert GraphTrust(rows, np.ones(4), 0.5).weight() == pytest.approx(0.6)
    assert GraphTrust(rows, np.ones(4), 1.0).weight() == 0  # one class only: nothing was proved
    trust = GraphTrust(rows, np.array([1, 1, 1, 0]), 0.25)
    assert trust.weight(teacher_accuracy=0.84) == trust.weight()
    assert trust.weight(teacher_accuracy=0.86) == 0
    assert trust.weight(teacher_accuracy=0.86, margin=0.2) == trust.weight()


def test_held_out_rows_do_not_see_their_own_label():
    # Pairs of one class each. Whichever of a pair is held out, the other one tells; alone in its class, nothing does.
    pairs = edges(6, {(0, 1): 1.0, (2, 3): 1.0, (4, 5): 1.0})
    trust = graph_trust(pairs, np.array([0, 0, 1, 1, 2, -1]), 3, folds=2)
    assert trust.rows.tolist() == [0, 1, 2, 3, 4]
    assert trust.correct.tolist() == [1, 1, 1, 1, pytest.approx(1 / 3)]
    assert trust.chance == pytest.approx(0.4)


@pytest.mark.parametrize("folds", [2, 5, 50])
def test_a_graph_without_edges_is_right_by_chance_and_gets_no_weight(folds):
    trust = graph_trust(edges(20, {}), np.arange(20) % 4, 4, folds=folds)
    assert np.allclose(trust.correct, 0.25)
    assert trust.weight() == 0


def test_a_single_labeled_row_proves_nothing():
    trust = graph_trust(LINE, np.array([-1, 1, -1]), 2)
    assert trust.correct.tolist() == [0.5]
    assert trust.weight() == 0


def test_agreement_by_hand():
    teacher = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.4, 0.3, 0.3], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    graph = np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    weights = agreement_weights(teacher, graph, 0.5)
    assert np.allclose(weights, [0.5 + 0.5 * 2 / 3, 0.5 + 0.5 / 3, 0.75, 0.5, 1.0])
    assert np.array_equal(agreement_weights(teacher, graph, 0.0), np.ones(5))
    assert np.allclose(agreement_weights(teacher, graph, 1.0), [2 / 3, 1 / 3, 0.5, 0.0, 1.0])


# --- input that makes no sense -----------------------------------------------------------------------------------


@pytest.mark.parametrize("search", SEARCHES)
def test_equal_embeddings_are_called_out_and_get_no_weight(search, caplog):
    classes = np.sort(np.arange(1200) % 3)  # sorted by class, as tables often are
    with caplog.at_level(logging.WARNING):
        graph = knn_graph(np.full((1200, 8), 0.7), 5, search=search)
    assert "equal" in caplog.text
    assert np.diff(graph.indptr).min() >= 5
    labels = some_labeled(classes, 10)
    result = spread_labels(graph, labels, 3)
    assert np.isfinite(result.probs).all()
    assert np.isfinite(result.certainty).all()
    assert graph_trust(graph, labels, 3).weight() < 0.2


def test_rows_of_zeros_and_opposite_rows_have_no_edges(caplog):
    with caplog.at_level(logging.WARNING):
        graph = knn_graph(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), 3)
    assert graph.nnz == 0
    assert "no edges" in caplog.text
    assert spread_labels(graph, np.array([0, 1, -1, -1]), 2).reached.tolist() == [True, True, False, False]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("rows", [2, 7])
def test_more_neighbors_than_rows_gives_the_complete_graph(search, rows):
    vectors = np.eye(rows) + 1.0
    assert knn_graph(vectors, 100, search=search).nnz == rows * (rows - 1)


@pytest.mark.parametrize("rows", [0, 1])
def test_nobody_has_a_neighbor(rows):
    graph = knn_graph(np.ones((rows, 3)))
    assert graph.shape == (rows, rows)
    assert graph.nnz == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_embeddings_that_are_not_finite_are_refused(bad):
    vectors = np.ones((5, 3))
    vectors[3, 1] = bad
    with pytest.raises(DataError, match=r"1 of 5 rows .* row 3"):
        knn_graph(vectors)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: knn_graph(np.ones(5)), r"matrix \[N, D\]"),
        (lambda: knn_graph(np.ones((5, 2)), 0), "k must be at least 1"),
        (lambda: knn_graph(np.ones((5, 2)), search="fast"), "search must be one of auto, exact"),
        (lambda: spread_labels(LINE, np.array([-1, -1, -1]), 2), "at least one labeled row"),
        (lambda: spread_labels(LINE, np.array([0, 1]), 2), "one label a row"),
        (lambda: spread_labels(LINE, np.array([0, 2, -1]), 2), "between -1 .* and 1"),
        (lambda: spread_labels(LINE, LINE_LABELS, 1), "num_classes must be at least 2"),
        (lambda: spread_labels(LINE, LINE_LABELS, 2, alpha=1.0), "alpha"),
        (lambda: spread_labels(LINE, LINE_LABELS, 2, class_prior=[1.0]), "class_prior must hold 2"),
        (lambda: spread_labels(LINE, LINE_LABELS, 2, class_prior=[-1.0, 2.0]), "class_prior must hold 2"),
        (lambda: graph_trust(LINE, np.array([-1, -1, -1]), 2), "a labeled row"),
        (lambda: agreement_weights(np.ones((2, 2)), np.ones((2, 3)), 0.5), "one shape"),
        (lambda: agreement_weights(np.ones((2, 2)), np.ones((2, 2)), 1.5), "trust"),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
