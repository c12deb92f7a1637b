"""`hfssl evaluate`: numbers worked out by hand, slices, JSON and exit status."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import Dataset

from hfssl.cli.main import main
from hfssl.deploy import evaluate as evaluate_module
from hfssl.deploy.evaluate import evaluate
from hfssl.errors import DataError
from hfssl.tasks.sequence_classification import SequenceClassification

# The stand-in for a model answers the first word of a text, with 90 %.
ROWS = [("no a", "no", "web"), ("no b", "no", "web"), ("no c", "yes", "mail"), ("yes d", "yes", "mail")]


class FirstWord:
    label_names = ("no", "yes")
    task = SequenceClassification()

    def tokenized(self, texts):
        return Dataset.from_dict({"first": [self.label_names.index(text.split()[0]) for (text,) in texts]})

    def predict_logits(self, rows):
        return np.log(np.where(np.eye(2)[rows["first"]] > 0, 0.9, 0.1)).astype(np.float32)


@pytest.fixture(autouse=True)
def first_word(monkeypatch):
    monkeypatch.setattr(evaluate_module, "open_classifier", lambda *_: FirstWord())


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "labeled.csv"
    lines = [",".join(row) for row in [*ROWS, ("yes e", "", "web"), ("", "no", "web")]]
    path.write_text("text,label,source\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_numbers_by_hand(table, tmp_path):
    found = evaluate("model", table, slice_column="source", output=tmp_path / "result.json")
    assert (found.rows, found.without_label, found.without_text) == (4, 1, 1)
    assert found.metrics["accuracy"] == 0.75
    assert found.metrics["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found.metrics["nll"] == pytest.approx(-(3 * np.log(0.9) + np.log(0.1)) / 4, abs=1e-6)
    assert found.metrics["ece"] == pytest.approx(0.15, abs=1e-6)
    assert found.intervals["accuracy"] == pytest.approx((0.3006, 0.9544), abs=1e-4)  # Wilson, 3 of 4
    assert all(low <= found.metrics[name] <= high for name, (low, high) in found.intervals.items())
    assert (found.largest_class, found.largest_class_accuracy) == ("no", 0.5)
    assert [(one.name, one.rows, one.precision, one.recall) for one in found.classes] == [
        ("yes", 2, 1.0, 0.5),
        ("no", 2, pytest.approx(2 / 3), 1.0),
    ]
    assert [(one.value, one.rows, one.accuracy) for one in found.slices] == [("mail", 2, 0.5), ("web", 2, 1.0)]
    saved = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert saved["metrics"] == found.metrics


def test_exit_status(table, capsys):
    assert main(["evaluate", "model", "--data", str(table), "--min-accuracy", "0.75"]) == 0
    assert "Accuracy 75.0 % of 4 rows" in capsys.readouterr().out
    assert main(["evaluate", "model", "--data", str(table), "--min-accuracy", "0.76"]) == 3
    assert main(["evaluate", "model", "--data", str(table), "--min-accuracy", "2"]) == 2


def test_unknown_labels_and_no_labels_are_one_sentence(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nno a,maybe\n")
    with pytest.raises(DataError, match="maybe"):
        evaluate("model", tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("text,label\nno a,\n")
    with pytest.raises(DataError, match="both"):
        evaluate("model", tmp_path / "b.csv")
