"""Class prior: posteriors adjusted, priors estimated, combined and aligned to, against numbers worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from hfssl.errors import ConfigurationError
from hfssl.functional.class_priors import (
    align_distribution,
    class_prior,
    class_weights,
    consensus_prior,
    estimate_prior,
    given_prior,
    predicted_prior,
)

EVEN = [0.5, 0.5]


def test_the_class_prior_of_labels_is_counts_with_one_row_spread_over_all_classes():
    # Of 0, 0, 1 and a third class without labels: (2 + 1/3, 1 + 1/3, 1/3) / 4; the unlabeled row does not count.
    np.testing.assert_allclose(class_prior([0, 0, 1, -1], 3), [7 / 12, 4 / 12, 1 / 12])


def test_a_class_prior_is_given_in_words_or_in_a_file(tmp_path):
    file = tmp_path / "shares.json"
    file.write_text(json.dumps({"ham": 30, "a=b, c": 10}), encoding="utf-8")
    np.testing.assert_allclose(given_prior("ham = 0.9,spam=0.1", ["spam", "ham"]), [0.1, 0.9])
    np.testing.assert_allclose(given_prior("ham=1, a=b=3", ["a=b", "ham"]), [0.75, 0.25])
    np.testing.assert_allclose(given_prior(str(file), ["a=b, c", "ham"]), [0.25, 0.75])


@pytest.mark.parametrize(
    "given",
    ["", "ham", "ham=1", "ham=1, spam=0", "ham=1, spam=nan", "ham=1, spam=x", "ham=1, spam=1, eggs=1", "none.json",
     "ham=1, ham=2, spam=1"],
)  # fmt: skip
def test_a_class_prior_without_a_class_or_without_numbers_is_refused(given):
    with pytest.raises(ConfigurationError) as error:
        given_prior(given, ["ham", "spam"])
    assert str(error.value) == (
        "class_prior: expected one number above 0 for each class, such as 'ham=1, spam=1', or a JSON file with them; "
        f"got '{given}'."
    )


def test_the_predicted_prior_is_drawn_to_the_expected_one_the_more_classes_there_are():
    # 7 to 3, as one row is spread over both; of two classes 2 parts in 52 are the prior's.
    shares = predicted_prior([0, 0, 0, 1], EVEN)
    np.testing.assert_allclose(shares[0] / shares[1], (7 / 3) ** (50 / 52))
    # Of 50 classes half is the prior's: (9 + 1/50) to 1/50 is 451 to 1, whose root counts.
    many = predicted_prior([0] * 9, np.full(50, 1 / 50))
    np.testing.assert_allclose(many[:2], [451**0.5 / (451**0.5 + 49), 1 / (451**0.5 + 49)])
    assert many.sum() == pytest.approx(1)
    unseen = predicted_prior(np.array([], dtype=int), [0.9, 0.1])
    np.testing.assert_allclose(unseen[0] / unseen[1], 9 ** (2 / 52))


def under_another_prior(probs, source, target):
    """Posteriors of Bayes' rule under another class prior (Saerens et al. 2002, equation 2.4)."""
    weighted = np.asarray(probs) * np.asarray(target) / np.asarray(source)
    return weighted / weighted.sum(axis=1, keepdims=True)


def test_certain_rows_are_counted():
    probs = np.eye(2)[[0, 0, 0, 1]]
    np.testing.assert_allclose(estimate_prior(probs, EVEN), [0.75, 0.25])


def test_unsure_rows_give_the_share_that_maximises_the_likelihood():
    # log(0.9 q + 0.1 (1 - q)) + log(0.2 q + 0.8 (1 - q)) has its maximum at q = 0.58 / 0.96.
    found = estimate_prior([[0.9, 0.1], [0.2, 0.8]], EVEN, tolerance=1e-12)
    np.testing.assert_allclose(found, [0.58 / 0.96, 0.38 / 0.96], atol=1e-6)


def test_the_class_prior_that_a_model_was_trained_on_is_taken_out_first():
    """The same likelihoods as in the test above, said by a model that expects nine rows of ten to be of class 0."""
    said = under_another_prior(np.array([[0.9, 0.1], [0.2, 0.8]]), EVEN, [0.9, 0.1])
    found = estimate_prior(said, [0.9, 0.1], tolerance=1e-12)
    np.testing.assert_allclose(found, [0.58 / 0.96, 0.38 / 0.96], atol=1e-6)


def test_the_class_prior_of_a_made_up_pool_is_found_again():
    """Two bell curves one standard deviation to either side of 0, a tenth of the rows from the left one."""
    generator = np.random.default_rng(0)
    left = generator.random(20_000) < 0.1
    x = generator.normal(np.where(left, -1.0, 1.0))
    p_right = 1 / (1 + np.exp(-2 * x))  # the exact posterior under even shares
    probs = np.stack([1 - p_right, p_right], axis=1)
    assert probs.mean(axis=0)[0] > 0.15  # averaging alone does not find them
    np.testing.assert_allclose(estimate_prior(probs, EVEN), [0.1, 0.9], atol=0.01)


def test_no_rows_tell_nothing():
    np.testing.assert_allclose(estimate_prior(np.zeros((0, 2)), [0.3, 0.7]), [0.3, 0.7])


def test_a_share_of_zero_is_refused():
    with pytest.raises(ValueError, match="class prior without zeros"):
        estimate_prior([[0.5, 0.5]], [1.0, 0.0])


def test_models_that_find_the_same_are_believed():
    # No disagreement: nothing is shrunk but by the row of pseudo-count, to (9 * 0.7 / 0.5 + 1) / 10 = 1.36 times 0.5.
    found = consensus_prior([[0.7, 0.3], [0.7, 0.3]], EVEN, num_rows=9)
    np.testing.assert_allclose(found, [13.6 / 20, 6.4 / 20])


def test_models_that_differ_are_drawn_toward_the_default():
    """Log-ratios to even shares log(1.4), log(1.1) and log(0.6), log(0.9): two variances, one factor."""
    found = consensus_prior([[0.7, 0.3], [0.55, 0.45]], EVEN, num_rows=10**9)
    variance = (math.log(1.4 / 1.1) ** 2 / 2 + math.log(0.6 / 0.9) ** 2 / 2) / 2
    trust = 1 / (1 + 8 * variance)
    odds = (math.sqrt(1.4 * 1.1) / math.sqrt(0.6 * 0.9)) ** trust  # geometric means over the models
    np.testing.assert_allclose(found, [odds / (1 + odds), 1 / (1 + odds)], atol=1e-6)
    assert 0.5 < found[0] < 0.61  # while the models say 0.625 on average


def test_a_model_alone_is_believed_by_a_ninth():
    odds = (0.7 / 0.3) ** (1 / 9)
    found = consensus_prior([[0.7, 0.3]], EVEN, num_rows=10**9)
    np.testing.assert_allclose(found, [odds / (1 + odds), 1 / (1 + odds)], atol=1e-6)


def test_a_class_that_no_model_finds_keeps_a_share():
    # Ratios of 1.99 and 0.01, of which the second counts as a half.
    found = consensus_prior([[1.0, 0.0], [1.0, 0.0]], EVEN, num_rows=99)
    np.testing.assert_allclose(found, [1.99 / 2.49, 0.5 / 2.49])


def test_matching_reaches_the_target_that_one_step_of_alignment_misses():
    probs = np.array([[0.8, 0.2], [0.6, 0.4]])
    matched = align_distribution(probs, EVEN)
    np.testing.assert_allclose(matched.mean(axis=0), EVEN, atol=1e-6)
    # By symmetry the odds 4 and 1.5 are divided by sqrt(4 * 1.5), after which one row is the other's mirror image.
    odds = 4 / math.sqrt(6)
    np.testing.assert_allclose(matched[0], [odds / (1 + odds), 1 / (1 + odds)], atol=1e-5)
    one_step = probs * np.array(EVEN) / probs.mean(axis=0)
    one_step /= one_step.sum(axis=1, keepdims=True)
    assert abs(one_step.mean(axis=0)[0] - 0.5) > 1e-3


def test_matching_to_what_expectation_maximisation_found_is_the_adjustment():
    probs = np.random.default_rng(0).dirichlet([2.0, 1.0, 1.0], size=200)
    prior = np.full(3, 1 / 3)
    found = estimate_prior(probs, prior, tolerance=1e-12)
    np.testing.assert_allclose(align_distribution(probs, found), under_another_prior(probs, prior, found), atol=1e-4)


def test_matching_leaves_a_class_that_no_row_is_given_at_zero():
    np.testing.assert_allclose(align_distribution(np.array([[1.0, 0.0]]), EVEN), [[1.0, 0.0]])


def test_class_weights_by_hand():
    # 3 + 1 rows of two classes: 4 / (2 * 3) and 4 / (2 * 1).
    np.testing.assert_allclose(class_weights("balanced", [0, 0, 1, 0], ["a", "b"]), [2 / 3, 2.0])
    np.testing.assert_allclose(class_weights("b=5, a=1", [0, 1], ["a", "b"]), [1.0, 5.0])
    np.testing.assert_allclose(class_weights({"a": 2, "b": 3}, [0, 1], ["a", "b"]), [2.0, 3.0])
    with pytest.raises(ConfigurationError, match="class_weights: expected one number above 0 for each class"):
        class_weights("a=1", [0, 1], ["a", "b"])
