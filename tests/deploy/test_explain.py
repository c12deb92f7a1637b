"""Explanation of one text: numbers worked out by hand, and those of plain transformers."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from transformers import BertForSequenceClassification, pipeline

from hfssl.data.splits import few_label_splits
from hfssl.deploy.explain import Explainer, LabeledRow, describe, nearest_rows
from hfssl.errors import ModelError
from tests.helpers.encoders import tiny_bert_config
from tests.helpers.texts import WORDS

NAMES = ["no", "yes", "perhaps"]


def test_labels_come_by_probability_with_the_entropy_in_nats():
    said = describe(np.array([0.25, 0.5, 0.25], dtype=np.float32), NAMES, 0.125, [])
    assert said.probabilities == [("yes", 0.5), ("no", 0.25), ("perhaps", 0.25)]  # of equal ones the first label
    # H = 1/2 log 2 + 2 * 1/4 log 4 = 3/2 log 2; of at most log 3.
    assert said.entropy == pytest.approx(1.5 * math.log(2), abs=1e-6)
    assert said.entropy_share == pytest.approx(1.5 * math.log(2) / math.log(3), abs=1e-6)
    assert said.bald == 0.125
    assert said.cut_at is None


@pytest.mark.parametrize(
    ("probs", "nats", "share"),
    [([1.0, 0.0], 0.0, 0.0), ([0.5, 0.5], math.log(2), 1.0), ([1.0], 0.0, 0.0)],
    ids=["certain", "even", "one label"],
)
def test_entropy_from_none_to_all(probs, nats, share):
    said = describe(np.array(probs, dtype=np.float32), NAMES[: len(probs)], None, [])
    assert (said.entropy, said.entropy_share) == pytest.approx((nats, share), abs=1e-6)


def test_the_nearest_rows_by_cosine():
    features = np.array([[0, 2], [3, 4], [5, 0], [-1, 0], [0, 0], [10, 0]], dtype=np.float32)
    rows, cosines = nearest_rows(np.array([2, 0], dtype=np.float32), features, 4)
    # Lengths do not count: (5, 0) and (10, 0) have cosine 1, (3, 4) has 3/5; (0, 2) and zeros have 0.
    assert rows.tolist() == [2, 5, 1, 0]
    np.testing.assert_allclose(cosines, [1.0, 1.0, 0.6, 0.0], atol=1e-6)
    assert nearest_rows(np.ones(2), features[:2], 5)[0].tolist() == [1, 0]  # no more than there are


def save_classifier(folder, tokenizer, **overrides):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = tiny_bert_config(len(tokenizer), num_labels=3, initializer_range=0.5, **overrides)
        config.id2label, config.label2id = dict(enumerate(NAMES)), {name: i for i, name in enumerate(NAMES)}
        BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


LABELED = [("good great fun", "yes"), ("bad dull", "no"), ("who what when", "perhaps")] * 10


@pytest.fixture(scope="module", params=["text", "pair"])
def run(request, tmp_path_factory, tiny_tokenizer):
    """The parts of a finished run that a page needs."""
    folder = tmp_path_factory.mktemp("run")
    save_classifier(folder / "model", tiny_tokenizer)
    columns = {
        "text": [f"{text} {' '.join(WORDS[i : i + 3])}" for i, (text, _) in enumerate(LABELED)],
        "label": [NAMES.index(label) for _, label in LABELED],
    }
    features = {"text": Value("string"), "label": ClassLabel(names=NAMES)}
    if request.param == "pair":
        columns["text_pair"] = [f"story {WORDS[i]} {WORDS[-i]}" for i in range(len(LABELED))]
        features["text_pair"] = Value("string")
    few_label_splits(Dataset.from_dict(columns, features=Features(features))).save(folder / "splits")
    (folder / "results.json").write_text("{}")
    return folder


def test_a_run_is_explained_as_plain_transformers_would(run):
    explainer = Explainer(run, passes=4)
    texts = ("good great fun", "story")[: 2 if explainer.pairs else 1]
    said = explainer(*texts)
    plain = pipeline("text-classification", model=str(run / "model"), top_k=None)
    scores = plain({"text": texts[0], "text_pair": texts[1]} if explainer.pairs else texts[0])
    scores = scores[0] if isinstance(scores[0], list) else scores
    assert [name for name, _ in said.probabilities] == [entry["label"] for entry in scores]
    np.testing.assert_allclose([p for _, p in said.probabilities], [entry["score"] for entry in scores], atol=1e-5)
    assert 0 < said.bald < math.log(3)
    assert said == explainer(*texts)  # the same text, the same numbers


def test_a_labeled_row_is_its_own_nearest_neighbor(run):
    explainer = Explainer(run, passes=2)
    assert {row.part for row in explainer.rows} == {"labeled", "validation"}
    assert len(explainer.rows) == len(LABELED)
    row = explainer.rows[7]
    neighbors = explainer(*row.texts).neighbors
    assert len(neighbors) == 5
    assert neighbors[0].row == row
    assert neighbors[0].similarity == pytest.approx(1.0, abs=1e-5)
    assert neighbors[0].similarity >= neighbors[1].similarity >= neighbors[4].similarity
    label = next(label for text, label in LABELED if row.texts[0].startswith(text))
    assert row == LabeledRow(row.texts, label, row.part)


def test_a_bare_model_has_no_neighbors_and_one_without_dropout_no_bald(tmp_path, tiny_tokenizer):
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    explainer = Explainer(save_classifier(tmp_path / "model", tiny_tokenizer, **off))
    said = explainer("good \ud800 fun")  # half of a surrogate pair is read as a question mark
    assert (said.neighbors, said.bald) == ([], None)
    assert said == explainer("good ? fun")


def test_a_text_longer_than_the_model_reads_is_said_to_be_cut(tmp_path, tiny_tokenizer):
    explainer = Explainer(save_classifier(tmp_path / "model", tiny_tokenizer), passes=2)
    assert explainer("good " * 62).cut_at is None  # and [CLS] and [SEP]: 64 tokens
    assert explainer("good " * 63).cut_at == 64


def test_what_is_no_run_is_refused_in_a_sentence(run, tmp_path):
    with pytest.raises(ModelError, match="there is no such folder"):
        Explainer(tmp_path / "none")
    with pytest.raises(ModelError, match="no results.json, config.json"):
        Explainer(tmp_path)
    shutil.copytree(run / "splits", tmp_path / "splits")
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(ModelError, match="finish it with hfssl fit --resume"):
        Explainer(tmp_path)
