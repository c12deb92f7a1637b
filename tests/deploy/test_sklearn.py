"""`SSLClassifier` is an estimator of scikit-learn: its checks, and the tools that are built on them."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from hfssl.deploy.sklearn import SSLClassifier
from hfssl.errors import DataError
from tests.helpers.fit_tiny import PROBE_ONLY

TEXTS = [f"{cue} the film number {number} was {cue}" for number in range(8) for cue in ("good", "dull")]
LABELS = ["yes", "no"] * 8
FAST = {"rounds": 0, "quiet": True, "max_length": 16}
# At most five, each with its reason.
EXPECTED_FAILURES = {
    "check_classifiers_classes": "one of its two labels is -1, which means unlabeled (scikit-learn's own convention)",
}


@pytest.fixture
def estimator(tiny_backbone, monkeypatch):
    import hfssl.pipeline.presets

    monkeypatch.setitem(hfssl.pipeline.presets.PRESETS, "quick", PROBE_ONLY)
    return SSLClassifier(tiny_backbone, preset="quick", options=FAST)


def test_texts_with_and_without_labels(estimator):
    labels = [label if number < 10 else -1 for number, label in enumerate(LABELS)]
    with pytest.raises(NotFittedError):
        estimator.predict(TEXTS)
    assert estimator.fit(TEXTS, labels) is estimator
    assert estimator.classes_.tolist() == ["no", "yes"]
    assert estimator.results_["data"]["counts"]["labeled"] == {"no": 5, "yes": 5, "(unlabeled)": 0}
    probs = estimator.predict_proba(TEXTS)
    assert probs.shape == (16, 2)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
    assert estimator.predict(TEXTS).tolist() == [["no", "yes"][row] for row in probs.argmax(axis=1)]
    right = estimator.predict(TEXTS[:10]) == np.array(LABELS[:10])
    assert estimator.score(TEXTS, labels) == right.mean()  # of the labeled rows alone
    with pytest.raises(DataError, match="got none in row 1"):
        estimator.predict(["good", ""])
    copy = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(copy.predict_proba(TEXTS), probs)


def test_classes_keep_their_type_and_frames_their_column(estimator):
    frame = pd.DataFrame({"text": TEXTS})
    fitted = clone(estimator).fit(frame, pd.Series([7, 3] * 8))
    assert set(fitted.predict(frame).tolist()) <= {3, 7}
    assert fitted.classes_.tolist() == [3, 7]


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (TEXTS, LABELS[:3], "got 3 labels and 16 texts"),
        (TEXTS, ["yes"] * 16, "at least two classes, got one class"),
        (TEXTS, [-1] * 16, "got no class"),
        (TEXTS, None, "expected labels y, got None"),
        ([], [], "expected texts"),
    ],
)
def test_bad_input_is_one_sentence(estimator, texts, labels, message):
    with pytest.raises(DataError, match=message):
        estimator.fit(texts, labels)


@pytest.mark.slow  # six runs of `fit`
def test_pipelines_scores_and_searches(estimator):
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    chain = make_pipeline(lower, estimator)
    scores = cross_val_score(chain, TEXTS, LABELS, cv=2)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()
    search = GridSearchCV(estimator, {"random_state": [0, 1]}, cv=2, refit=False).fit(TEXTS, LABELS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.slow  # forty runs of `fit`
def test_the_checks_of_scikit_learn(estimator):
    assert len(EXPECTED_FAILURES) <= 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(estimator, expected_failed_checks=EXPECTED_FAILURES, on_fail=None, on_skip=None)
    failed = {check["check_name"]: repr(check["exception"]) for check in found if check["status"] == "failed"}
    assert not failed
    assert sum(check["status"] == "passed" for check in found) > 20
