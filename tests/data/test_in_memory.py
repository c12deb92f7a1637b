"""Data in memory: every kind gives the rows of the same table in a file, by the same rules."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hfssl.data.in_memory import fingerprint, is_in_memory, memory_source
from hfssl.data.loading import load_table
from hfssl.errors import DataError

TEXTS = ["a good film", "a dull film", "who knows", "half \ud800 a smile"]
LABELS = ["yes", "no", None, "YES "]
WANTED = ["text", "label"]


def rows_of(table, **options):
    loaded = load_table(table, **options)
    names = loaded.features["label"].names
    return loaded["text"][:], [None if label < 0 else names[label] for label in loaded["label"][:]]


@pytest.mark.parametrize(
    "table",
    [
        {"text": TEXTS, "label": LABELS},
        {"text": np.array(TEXTS, dtype=object), "label": pd.Series(LABELS, dtype=object)},
        pd.DataFrame({"text": pd.Series(TEXTS, dtype=object), "label": LABELS}),
        pd.DataFrame({"text": TEXTS, "label": ["yes", "no", float("nan"), "YES "]}, dtype=object),
        [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)],
        list(zip(TEXTS, LABELS, strict=True)),
    ],
    ids=["dict", "arrays", "frame", "frame-nan", "dicts", "pairs"],
)
def test_every_kind_is_read_by_the_rules_of_files(table):
    assert rows_of(table) == (
        ["a good film", "a dull film", "who knows", "half ? a smile"],
        ["yes", "no", None, "yes"],
    )


def test_data_sets_keep_their_class_names_and_minus_one():
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    data = Dataset.from_dict({"text": TEXTS[:3], "label": [1, 0, -1]}, features=features).with_format("numpy")
    assert rows_of(data)[1] == ["yes", "no", None]
    splits = DatasetDict({"train": data, "test": data.select([1])})
    assert rows_of(splits)[1] == ["yes", "no", None]
    assert rows_of(splits, split="test") == (["a dull film"], ["no"])


def test_minus_one_of_a_frame_is_what_it_is_in_a_file(caplog):
    frame = pd.DataFrame({"text": TEXTS[:3], "label": np.array([1, 0, -1])})
    assert rows_of(frame)[1] == ["1", "0", "-1"]
    assert rows_of(frame, missing_labels="-1")[1] == ["1", "0", None]


def test_texts_alone_are_a_pool():
    assert load_table(TEXTS[:2], label_column=None)["text"][:] == TEXTS[:2]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (3, "expected train to be a path, .* got a int"),
        ([{"text": "a"}, "b"], "got a list of dict"),
        ({"text": ["a", "b"], "label": ["x"]}, "columns of one length .* 'text' has 2, 'label' has 1"),
        (Dataset.from_dict({"text": ["a"], "label": [0]}).to_iterable_dataset(), "to have a length, got a stream"),
        (pd.DataFrame({"txt": ["a"], "label": ["x"]}), r"expected a column 'text' in 'train \(DataFrame\)'.*'txt'"),
        ([], r"expected rows in train \(list\), got none"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(table, message):
    with pytest.raises(DataError, match=message) as caught:
        load_table(table)
    assert "\n" not in str(caught.value)


def test_the_fingerprint_is_that_of_the_values_that_are_read():
    def told(**columns):
        return fingerprint(memory_source({"text": ["a", "b"], "label": ["x", None], **columns}, WANTED), WANTED)

    assert told() == told(other=[1, 2])  # a column that nobody reads
    assert told().startswith("dict of 2 rows, ")
    assert len({told(), told(text=["a", "c"]), told(label=["x", "x"]), told(text=["b", "a"])}) == 4
    assert not is_in_memory("reviews.csv")
    assert not is_in_memory(None)
