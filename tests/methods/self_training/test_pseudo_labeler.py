"""From teachers and a pool to pseudo-labels: the order of the steps, and each choice of the last one, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.inference.predictions import MCDropoutResult
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.signals import EmbeddingSignals, Graph, OutOfDistribution
from hfssl.methods.self_training.pseudo_labeler import PseudoLabeler, find_class_prior, sharpened
from hfssl.methods.self_training.teachers import EnsemblePrediction, Teacher
from hfssl.methods.self_training.votes import Votes
from tests.helpers.table_model import TableModel, on_circle, token_rows


def probs_of(*first: float) -> np.ndarray:
    """`[N, 2]` probabilities, from those of the first class."""
    return np.array([[p, 1 - p] for p in first], dtype=np.float32)


def one_pass(probs) -> MCDropoutResult:
    """The result of passes that agree but for a variance of 0.01."""
    probs = np.asarray(probs, dtype=np.float32)
    return MCDropoutResult(probs, probs, np.full_like(probs, 0.01), probs, np.zeros(len(probs)))


@pytest.fixture
def labeler(tmp_path, tiny_tokenizer):
    """Makes a labeler of two classes; its encoder finds the tokens of the pool a few degrees apart."""

    def make(**settings) -> PseudoLabeler:
        common = {"selection_strategy": "all", "soft_targets": True, "weighting": "uniform", "mc_passes": 0}
        args = SelfTrainingConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **(common | settings))

        def encoder() -> TableModel:
            return TableModel(probs_of(*[0.5] * 6).tolist(), on_circle([0, 90, 10, 20, 30, 40]).tolist())

        return PseudoLabeler(encoder, args, tiny_tokenizer, ["first", "second"], folder=tmp_path / "rounds")

    return make


# --- the order of the steps ------------------------------------------------------------------------------------------

# Tokens 0 and 1 are labeled; the pool holds tokens 2 to 5.
LABELED, POOL, HELD_OUT = token_rows([0, 1], [0, 1]), token_rows([2, 3, 4, 5]), token_rows([2, 3, 4], [1, 1, 1])
TEACHERS = [
    Teacher(TableModel(probs_of(0.9, 0.1, 0.8, 0.6, 0.4, 0.9).tolist())),
    Teacher(TableModel(probs_of(0.9, 0.1, 0.6, 0.8, 0.2, 0.7).tolist())),
]
COMBINED = [0.7, 0.7, 0.3, 0.8]  # means of the two
# With half of the weight on the mean of the three other rows: 0.6, 0.6, 2.2 / 3 and 1.7 / 3.
SMOOTHED = [0.65, 0.65, 0.5 * 0.3 + 1.1 / 3, 0.4 + 0.85 / 3]


def test_the_steps_come_in_the_stated_order(labeler, tmp_path):
    settings = {"num_teachers": 2, "rounds": 1, "knn_smoothing": 0.5, "distribution_alignment": "predicted"}
    settings |= {"selection_strategy": "threshold", "confidence_threshold": 0.88}
    found = labeler(**settings).label(
        TEACHERS,
        LABELED,
        POOL,
        stream=0,
        title="",
        fraction=1.0,
        folder=tmp_path,
        temperature=2.0,
    )
    # 1 and 2: each teacher scores, and they are combined.
    np.testing.assert_allclose(found.ensemble.teacher_probs[:, :, 0], [[0.8, 0.6, 0.4, 0.9], [0.6, 0.8, 0.2, 0.7]])
    np.testing.assert_allclose(found.ensemble.combined.mean_probs[:, 0], COMBINED, rtol=1e-6)
    # 3: signals change the combined prediction.
    np.testing.assert_allclose(found.ensemble.combined.deterministic_probs[:, 0], SMOOTHED, rtol=1e-6)
    # 4: the prior comes after the signals: all four rows are of the first class now, and without them three were.
    ratio = found.class_prior[0] / found.class_prior[1]
    assert ratio == pytest.approx(9 ** (50 / 52))
    # 5: the temperature takes the square root of all odds. 6: alignment comes after it, since it multiplies all odds
    # by the same factor, and leaves the mean at the prior; the threshold comes last.
    labels = found.labels
    assert labels.rows.tolist() == [0, 1, 3]
    taught, smoothed = labels.target_probs[:, 0], np.array(SMOOTHED)[labels.rows]
    odds, before = taught / (1 - taught), smoothed / (1 - smoothed)
    np.testing.assert_allclose(odds / odds[0], np.sqrt(before / before[0]), rtol=1e-4)
    last_odds = odds[0] * np.sqrt(SMOOTHED[2] / (1 - SMOOTHED[2]) / before[0])
    last = last_odds / (1 + last_odds)
    assert last < 0.88 < taught.min()
    assert (taught.sum() + last) / 4 == pytest.approx(found.class_prior[0], abs=1e-5)


def test_later_teachers_get_no_signals_and_keep_the_prior(labeler, tmp_path):
    settings = {"knn_smoothing": 0.5, "distribution_alignment": "predicted", "rounds": 2, "num_teachers": 2}
    prior = np.array([0.6, 0.4])
    more = {"stream": 1, "title": "", "fraction": 1.0, "folder": tmp_path, "first": False, "class_prior": prior}
    found = labeler(**settings).label(TEACHERS, LABELED, POOL, **more)
    np.testing.assert_allclose(found.ensemble.combined.deterministic_probs[:, 0], COMBINED, rtol=1e-6)
    assert found.class_prior is prior
    assert (found.weights, found.temperature) == ({"teachers": 1.0}, 1.0)
    np.testing.assert_allclose(found.labels.target_probs.mean(axis=0), prior, atol=1e-5)


def test_a_refit_goes_through_the_same_steps_and_gives_an_earlier_ensemble_half_of_the_weight(labeler, tmp_path):
    earlier = EnsemblePrediction.of([one_pass(probs_of(0.1, 0.2, 0.3, 0.4))])
    found = labeler(knn_smoothing=0.5).label(
        TEACHERS,
        LABELED,
        POOL,
        stream="refit",
        title="",
        fraction=1.0,
        folder=tmp_path,
        earlier=earlier,
        weights={"teachers": 0.75, "neighbors": 0.25},
        temperature=1.0,
    )
    expected = [(new + old) / 2 for new, old in zip(SMOOTHED, (0.1, 0.2, 0.3, 0.4), strict=True)]
    np.testing.assert_allclose(found.labels.target_probs[:, 0], expected, rtol=1e-5)
    assert len(found.ensemble.teacher_probs) == 3
    assert found.weights == {"teachers": 0.75, "neighbors": 0.25}  # of a member that is not there
    assert found.class_prior is None


def test_the_probes_weight_and_the_temperature_are_found_on_held_out_labels(labeler, tmp_path):
    """All held-out labels are of the second class, and the teachers predict the first one."""
    settings = {"backbone_probe": True, "selection_strategy": "threshold", "confidence_threshold": 0.5}
    more = {"stream": 0, "title": "", "fraction": 1.0}
    found = labeler(**settings).label(TEACHERS, LABELED, POOL, held_out=HELD_OUT, folder=tmp_path / "a", **more)
    assert found.temperature > 1
    probe = found.signals["backbone_probe"].probs
    mixed = found.weights["teachers"] * np.array(COMBINED) + found.weights["backbone_probe"] * probe[:, 0]
    np.testing.assert_allclose(found.ensemble.combined.deterministic_probs[:, 0], mixed, rtol=1e-5)
    alone = labeler(**settings).label(TEACHERS, LABELED, POOL, folder=tmp_path / "b", **more)
    assert alone.temperature == 1
    assert alone.weights == pytest.approx({"teachers": 0.6, "backbone_probe": 0.4})


def test_votes_that_are_given_decide_weights_and_temperature_and_held_out_rows_do_not(labeler, tmp_path):
    """The members have predicted labels that none of them has seen elsewhere: in folds."""
    settings = {"backbone_probe": True, "selection_strategy": "threshold", "confidence_threshold": 0.5}
    labels = np.zeros(30, dtype=np.int64)
    votes = Votes({"teachers": probs_of(*[0.4] * 30), "backbone_probe": probs_of(*[0.9] * 30)}, labels)
    more = {"stream": 0, "title": "", "fraction": 1.0, "folder": tmp_path, "votes": votes}
    found = labeler(**settings).label(TEACHERS, LABELED, POOL, held_out=HELD_OUT, **more)
    assert found.weights == votes.weights
    assert found.weights["backbone_probe"] > 0.7
    assert found.temperature == votes.temperature < 1  # all of these labels are right
    probe = found.signals["backbone_probe"].probs
    mixed = found.weights["teachers"] * np.array(COMBINED) + found.weights["backbone_probe"] * probe[:, 0]
    np.testing.assert_allclose(found.ensemble.combined.deterministic_probs[:, 0], mixed, rtol=1e-5)


def test_neighbours_vote_with_the_weight_that_votes_give_them(labeler, tmp_path):
    """Each of the four rows has the three others as neighbours, of each teacher."""
    weights = {"teachers": 0.75, "neighbors": 0.25}
    more = {"stream": 0, "title": "", "fraction": 1.0, "folder": tmp_path, "weights": weights}
    found = labeler(neighbor_votes=True).label(TEACHERS, LABELED, POOL, **more)
    others = [(sum(COMBINED) - own) / 3 for own in COMBINED]
    expected = 0.75 * np.array(COMBINED) + 0.25 * np.array(others)
    np.testing.assert_allclose(found.ensemble.combined.deterministic_probs[:, 0], expected, rtol=1e-6)


def test_a_prior_that_is_given_goes_before_one_that_is_estimated(labeler, tmp_path):
    more = {"stream": 0, "title": "", "fraction": 1.0, "folder": tmp_path}
    settings = {"class_prior": "first=3, second=1", "distribution_alignment": "predicted"}
    found = labeler(**settings).label(TEACHERS, LABELED, POOL, **more)
    np.testing.assert_allclose(found.class_prior, [0.75, 0.25])
    np.testing.assert_allclose(found.labels.target_probs.mean(axis=0), [0.75, 0.25], atol=1e-5)


# --- class prior -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alignment", ["none", "labeled", "predicted", "estimated"])
def test_the_class_prior_that_an_alignment_asks_for(alignment):
    # Both teachers, which learned from even labels, find class 0 in three of four rows.
    rows = probs_of(0.95, 0.95, 0.95, 0.05)
    ensemble = EnsemblePrediction.of([one_pass(rows)] * 2)
    prior = find_class_prior(ensemble, [0, 1, 0, 1], alignment, others_weight=0.0)
    if alignment == "none":
        assert prior is None
    elif alignment == "labeled":
        np.testing.assert_allclose(prior, [0.5, 0.5])
    elif alignment == "predicted":
        # Three and one, and one row spread over both: 7 to 3, to the power of 50 in 52 parts, the rest even.
        np.testing.assert_allclose(prior[0] / prior[1], (7 / 3) ** (50 / 52))
    else:
        assert prior[0] > rows[:, 0].mean()
        # A probe that has all the weight leaves the prior as it is found.
        by_probe = find_class_prior(ensemble, [0, 1, 0, 1], alignment, others_weight=1.0)
        np.testing.assert_allclose(by_probe, rows.mean(axis=0), rtol=1e-5)


# --- selection -------------------------------------------------------------------------------------------------------


def test_labels_are_aligned_to_the_class_prior_of_the_pool(labeler):
    """Three rows are surely of class 0 and the fourth is not: by itself class 1 by a little, here class 0."""
    prediction = one_pass(probs_of(1, 1, 1, 0.45))
    plain = labeler().select(prediction, stream=0)
    aligned = labeler().select(prediction, stream=0, class_prior=np.array([0.9, 0.1]))
    assert plain.predicted.tolist() == [0, 0, 0, 1]
    assert aligned.predicted.tolist() == [0, 0, 0, 0]
    # Only the last row can give: it ends at 0.6 and 0.4, so that the means are 3.6 / 4 and 0.4 / 4.
    np.testing.assert_allclose(aligned.target_probs[3], [0.6, 0.4], atol=1e-4)


def test_a_threshold_is_put_on_what_the_temperature_has_left(labeler):
    """At T = 2 the odds of 0.9 and 0.1 are 3 to 1, and those of 0.8 and 0.2 are 2 to 1."""
    found = labeler(selection_strategy="threshold", confidence_threshold=0.75 - 1e-6)
    prediction = one_pass(probs_of(0.9, 0.8))
    assert found.select(prediction, stream=0).rows.tolist() == [0, 1]
    tempered = found.select(prediction, stream=0, temperature=2.0)
    assert tempered.rows.tolist() == [0]
    np.testing.assert_allclose(tempered.target_probs, [[0.75, 0.25]], atol=1e-6)


def test_sharpening_by_hand():
    # Squares of 0.6 and 0.4 are 0.36 and 0.16.
    np.testing.assert_allclose(sharpened(np.array([[0.6, 0.4]]), 0.5), [[0.36 / 0.52, 0.16 / 0.52]])
    np.testing.assert_allclose(sharpened(np.array([[1.0, 0.0]]), 0.5), [[1.0, 0.0]], atol=1e-12)
    probs = np.array([[0.6, 0.4]], dtype=np.float32)
    assert sharpened(probs, 1.0) is probs


def test_soft_targets_are_sharpened_and_hard_ones_are_not(labeler):
    prediction = one_pass(probs_of(0.6))
    soft = labeler(sharpen_temperature=0.5).select(prediction, stream=0)
    np.testing.assert_allclose(soft.target_probs, [[0.36 / 0.52, 0.16 / 0.52]], atol=1e-6)
    hard = labeler(sharpen_temperature=0.5, soft_targets=False).select(prediction, stream=0)
    np.testing.assert_allclose(hard.target_probs, [[1, 0]])


def graph(mode, probs, trust=1.0) -> Graph:
    """A graph of two rows, with a certainty of 0.9 and 0.1."""
    found = Graph(mode, num_classes=2, seed=0)
    found.probs, found.certainty, found.trust = np.asarray(probs, dtype=np.float64), np.array([0.9, 0.1]), trust
    return found


def test_a_row_on_which_graph_and_teacher_agree_counts_more(labeler):
    prediction, near = one_pass(probs_of(0.9, 0.9)), [[0.75, 0.25], [0.25, 0.75]]
    agreed = labeler().select(prediction, stream=0, signals=EmbeddingSignals([graph("agreement", near)]))
    np.testing.assert_allclose(agreed.weights, [1.5, 0.5])  # 3/4 to 1/4, with mean 1
    certain = labeler().select(prediction, stream=0, signals=EmbeddingSignals([graph("certainty", near)]))
    np.testing.assert_allclose(certain.weights, [1.8, 0.2])  # 0.9 to 0.1, with mean 1


@pytest.mark.parametrize("mode", ["agreement", "certainty", "labels"])
def test_a_graph_without_trust_changes_nothing(labeler, mode):
    prediction, distrusted = one_pass(probs_of(0.9, 0.9)), graph(mode, [[0.0, 1.0], [0.0, 1.0]], trust=0.0)
    labels = labeler().select(prediction, stream=0, signals=EmbeddingSignals([distrusted]))
    np.testing.assert_allclose(labels.weights, [1, 1])
    np.testing.assert_allclose(labels.target_probs, prediction.deterministic_probs)


def test_the_graphs_labels_are_mixed_in_as_far_as_it_is_trusted(labeler):
    prediction, near = one_pass(probs_of(0.9, 0.6)), graph("labels", [[0.5, 0.5], [0.0, 1.0]], trust=0.25)
    labels = labeler().select(prediction, stream=0, signals=EmbeddingSignals([near]))
    np.testing.assert_allclose(labels.target_probs, [[0.8, 0.2], [0.45, 0.55]], atol=1e-6)
    assert labels.predicted.tolist() == [0, 1]


def test_the_factors_of_several_signals_are_multiplied(labeler):
    odd = OutOfDistribution(active=True)
    odd.rows = np.array([False, True])  # half of the pool
    signals = EmbeddingSignals([odd, graph("certainty", [[1, 0], [1, 0]])])
    labels = labeler().select(one_pass(probs_of(0.9, 0.6)), stream=0, signals=signals)
    np.testing.assert_allclose(labels.weights, [2, 0])


def test_the_fraction_of_the_round_is_selected(labeler):
    prediction = one_pass(probs_of(0.9, 0.8, 0.1, 0.3))
    labels = labeler(selection_strategy="top_k").select(prediction, stream=0, fraction=0.5)
    assert labels.rows.tolist() == [0, 2]
    assert labels.predicted.tolist() == [0, 0, 1, 1]  # of every row


def test_the_selection_depends_on_seed_and_stream(labeler):
    prediction = one_pass(probs_of(*[0.9] * 40))
    half = {"fraction": 0.5}
    found = {
        (seed, stream): labeler(selection_strategy="uniform", seed=seed).select(prediction, stream=stream, **half)
        for seed in (1, 2)
        for stream in (0, 1, "refit")
    }
    assert len({tuple(labels.rows) for labels in found.values()}) == 6
    again = labeler(selection_strategy="uniform", seed=2).select(prediction, stream="refit", **half)
    np.testing.assert_array_equal(again.rows, found[2, "refit"].rows)
