"""From the arguments to the splits: columns that the first table must have and the others may lack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from hfssl.config.arguments import DataArguments
from hfssl.data.prepare import make_splits
from hfssl.errors import DataError


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def options(tmp_path) -> dict:
    names = ["good", "bad"]
    words = "river city actor story plot who what when where why one two three four".split()
    rows = [
        {"body": f"{names[i % 2]} {words[i]} film", "label": names[i % 2], "movie": f"m{i // 2}", "key": f"r{i}"}
        for i in range(14)
    ]
    return {"train": write(tmp_path / "train.jsonl", rows), "text_column": "body", "group_column": "movie"}


def test_further_tables_may_lack_the_group_and_the_id(options, tmp_path):
    pool = [{"body": f"{word} seen last night"} for word in ("comedy", "drama", "western", "thriller")]
    test = [{"body": f"a {word} evening", "label": word} for word in ("good", "bad")]
    tables = {"unlabeled": write(tmp_path / "pool.jsonl", pool), "test": write(tmp_path / "test.jsonl", test)}
    splits = make_splits(DataArguments(**options, **tables, id_column="key"), seed=0)
    assert sorted(splits["test"]["text"]) == sorted(row["body"] for row in test)
    assert set(splits["unlabeled"]["text"]) | set(splits["proxy"]["text"]) == {row["body"] for row in pool}
    assert set(splits["unlabeled"]["group"]) == {""}
    assert set(splits["labeled"]["group"]) == {f"m{i}" for i in range(7)}
    assert set(splits["labeled"]["id"]) | set(splits["validation"]["id"]) == {f"r{i}" for i in range(14)}


def test_further_tables_that_have_the_group_are_held_to_it(options, tmp_path):
    test = [{"body": f"a {word} evening", "label": word, "movie": "m0"} for word in ("good", "bad")]
    splits = make_splits(DataArguments(**options, test=write(tmp_path / "test.jsonl", test)), seed=0)
    assert "m0" not in splits["labeled"]["group"][:]


@pytest.mark.parametrize("column", ["group_column", "id_column"])
def test_the_first_table_must_have_them(options, column):
    with pytest.raises(DataError, match=f"expected a column 'movi'.*Did you mean 'movie'.*{column}"):
        make_splits(DataArguments(**(options | {"group_column": None, column: "movi"})), seed=0)


def test_further_tables_must_have_the_text(options, tmp_path):
    pool = write(tmp_path / "pool.jsonl", [{"text": "something else"}])
    with pytest.raises(DataError, match="expected a column 'body' in .*pool.jsonl"):
        make_splits(DataArguments(**options, unlabeled=pool), seed=0)


def test_class_names_are_given_in_words_or_in_a_file(tmp_path):
    rows = [{"text": f"{word} film", "label": i % 2} for i, word in enumerate("a b c d e f g h".split())]
    table, names = write(tmp_path / "train.jsonl", rows), tmp_path / "names.json"
    names.write_text('["bad", "good"]')
    for given in (str(names), "bad, good"):
        splits = make_splits(DataArguments(train=table, class_names=given), seed=0)
        assert splits.manifest["label_names"] == ["bad", "good"]
    names.write_text("{}")
    with pytest.raises(DataError, match=r"expected a JSON list of different label names in '.*names.json'"):
        make_splits(DataArguments(train=table, class_names=str(names)), seed=0)


def test_what_was_assumed_comes_first_among_the_warnings(tmp_path):
    labels = ["Good", "bad", "good ", "bad", "good", "bad", "n/a", "", ""]
    texts = "river city actor story plot who what when where".split()
    lines = ["body;label", *[f"{word} über alles;{label}" for word, label in zip(texts, labels, strict=True)]]
    (tmp_path / "t.csv").write_bytes("\r\n".join(lines).encode("cp1252"))
    splits = make_splits(DataArguments(train=str(tmp_path / "t.csv"), text_column="body"), seed=0)
    assert splits.manifest["label_names"] == ["bad", "good"]
    told = splits.manifest["warnings"]
    assert told[0].startswith("'t.csv' is read as `;`-separated cp1252")
    assert "in 1 row of 't.csv' the label means unlabeled: 'n/a' (1)" in told[1]
    assert "variants of label names are joined in 2 rows of 't.csv'" in told[2]
    other = DataArguments(
        train=str(tmp_path / "t.csv"),
        text_column="body",
        missing_labels="bad",
        keep_label_variants=True,
        encoding="cp1252",
        delimiter=";",
    )
    assert make_splits(other, seed=0).manifest["label_names"] == ["Good", "good", "n/a"]


@pytest.mark.parametrize("kind", ["saved", "folder"])
def test_each_table_reads_the_split_of_its_own_name(tmp_path, kind):
    words = "river city actor story plot who what when where why one two".split()
    train = Dataset.from_dict({"text": [f"{w} here" for w in words], "label": ["a", "b"] * 6})
    test = Dataset.from_dict({"text": ["first test row", "second row to test"], "label": ["a", "b"]})
    parts = DatasetDict(train=train, test=test)
    if kind == "saved":
        parts.save_to_disk(tmp_path / kind)
    else:
        (tmp_path / kind).mkdir()
        for name, part in parts.items():
            part.to_csv(tmp_path / kind / f"{name}.csv", index=False)
    source = str(tmp_path / kind)
    splits = make_splits(DataArguments(train=source, test=source), seed=0)
    assert sorted(splits["test"]["text"]) == sorted(test["text"])
    assert len(splits["labeled"]) == 12
    swapped = make_splits(DataArguments(train=source, test=f"{source}:test", unlabeled=f"{source}:test"), seed=0)
    assert sorted(swapped["test"]["text"]) == sorted(test["text"])
    with pytest.raises(DataError, match="expected .*'validation'"):
        make_splits(DataArguments(train=source, validation=source), seed=0)


def test_fingerprints_of_parts_include_labels(tmp_path):
    rows = [{"text": f"{word} film", "label": i % 2} for i, word in enumerate("a b c d e f g h".split())]
    first = make_splits(DataArguments(train=write(tmp_path / "1.jsonl", rows)), seed=0).manifest
    rows[0]["label"], rows[1]["label"] = rows[1]["label"], rows[0]["label"]
    second = make_splits(DataArguments(train=write(tmp_path / "2.jsonl", rows)), seed=0).manifest
    assert first["roles"]["labeled"]["fingerprints"] == second["roles"]["labeled"]["fingerprints"]
    assert first["part_fingerprints"]["labeled"] != second["part_fingerprints"]["labeled"]
