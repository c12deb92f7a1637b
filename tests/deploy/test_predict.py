"""`hfssl predict`: three more columns, no other change, in constant memory, a complete file or none."""

from __future__ import annotations

import csv
import datetime
import json
import math
import resource
import subprocess
import sys
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification, pipeline

import hfssl.data.formats.encodings
from hfssl.cli.main import main
from hfssl.deploy import predict as predict_module
from hfssl.deploy.predict import predict
from hfssl.errors import ConfigurationError, DataError
from hfssl.models.backbones import load_tokenizer
from hfssl.models.loading import load_classifier
from tests.helpers.encoders import tiny_bert_config

TEXTS = ["a good movie", "what a dull and awful story", "", "who", "the plot is great fun , the actor is bad"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, tiny_tokenizer):
    folder = tmp_path_factory.mktemp("classifier")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        names = ['ham, "egg"', "spam", "größer"]
        config = tiny_bert_config(len(tiny_tokenizer), num_labels=3, initializer_range=0.5)
        config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
        BertForSequenceClassification(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "in.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(["id", "text", "note"])
        csv.writer(file).writerows([f"00{i}", text, 'a,b\n"c"'] for i, text in enumerate(TEXTS))
    return path


def rows_of(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with open(path, encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in file]
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_columns_and_order_are_kept(classifier, table, tmp_path, suffix):
    out = tmp_path / f"out{suffix}"
    summary = predict(classifier, table, out, quiet=True)
    assert (summary.rows, summary.empty, summary.columns) == (5, 1, ["predicted_label", "probability", "entropy"])
    before, after = rows_of(table), rows_of(out)
    new = summary.columns
    assert [{key: row[key] for key in row if key not in new} for row in after] == before
    nothing = "" if suffix in (".csv", ".tsv") else None
    assert [after[2][name] for name in new] == [nothing] * 3  # no text, no guess


def test_the_numbers_are_those_of_plain_transformers(classifier, table, tmp_path):
    predict(classifier, table, tmp_path / "out.jsonl", quiet=True)
    plain = pipeline("text-classification", model=str(classifier), top_k=None)
    for row in rows_of(tmp_path / "out.jsonl"):
        if not row["text"]:
            continue
        scores = {entry["label"]: entry["score"] for entry in plain([row["text"]])[0]}
        best = max(scores, key=scores.get)
        assert row["predicted_label"] == best
        assert row["probability"] == pytest.approx(scores[best], abs=2e-5)
        assert row["entropy"] == pytest.approx(-sum(p * math.log(p) for p in scores.values()), abs=2e-5)


def test_chunks_change_nothing(classifier, table, tmp_path, monkeypatch):
    predict(classifier, table, tmp_path / "whole.jsonl", quiet=True)
    monkeypatch.setattr(predict_module, "CHUNK_ROWS", 2)
    predict(classifier, table, tmp_path / "chunks.jsonl", quiet=True, max_tokens=8)
    for whole, chunked in zip(rows_of(tmp_path / "whole.jsonl"), rows_of(tmp_path / "chunks.jsonl"), strict=True):
        assert whole["predicted_label"] == chunked["predicted_label"]
        assert whole["probability"] == pytest.approx(chunked["probability"], abs=2e-6)


def test_memory_does_not_grow_with_the_table(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_module, "CHUNK_ROWS", 128)
    monkeypatch.setattr(hfssl.data.formats.encodings, "CHUNK", 4096)
    peaks, sizes = {}, {}
    for count in (256, 256, 4096):  # the first run pays for what is loaded once
        table = tmp_path / f"{count}.jsonl"
        table.write_text("".join(json.dumps({"text": "who", "note": "x" * 400}) + "\n" for _ in range(count)))
        tracemalloc.start()
        predict(classifier, table, tmp_path / "out.csv", quiet=True, overwrite=True)
        peaks[count], sizes[count] = tracemalloc.get_traced_memory()[1], table.stat().st_size
        tracemalloc.stop()
    # Some garbage waits for its collection; rows that were kept would take more than their size on disk.
    assert peaks[4096] - peaks[256] < 0.3 * (sizes[4096] - sizes[256])


def test_parquet_keeps_its_types(classifier, tmp_path):
    source = pa.table(
        {
            "text": pa.array(TEXTS),
            "kind": pa.array(["x", None, "x", "y", "y"]).dictionary_encode(),
            "when": pa.array([datetime.datetime(2024, 1, day, 12, 30) for day in range(1, 6)], pa.timestamp("us")),
            "n": pa.array([1, 2, None, 4, 5], pa.int16()),
            "list": pa.array([[1], [], None, [2, 3], [4]], pa.list_(pa.int32())),
        }
    )
    pq.write_table(source, tmp_path / "in.parquet")
    predict(classifier, tmp_path / "in.parquet", tmp_path / "out.parquet", quiet=True)
    made = pq.read_table(tmp_path / "out.parquet")
    assert made.select(source.column_names).equals(source)
    assert made.schema.field("probability").type == pa.float64()


def test_name_clashes_get_a_number(classifier, tmp_path):
    rows = [{"text": "a good movie", "probability": "mine", "probability_2": 7}, {"text": "who", "entropy": [1, 2]}]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    summary = predict(classifier, source, tmp_path / "out.jsonl", quiet=True)
    assert summary.columns == ["predicted_label", "probability_3", "entropy_2"]
    made = rows_of(tmp_path / "out.jsonl")
    assert [{key: row[key] for key in old} for row, old in zip(made, rows, strict=True)] == rows
    predict(classifier, source, tmp_path / "out.csv", quiet=True)
    assert [row["entropy"] for row in rows_of(tmp_path / "out.csv")] == ["", "[1, 2]"]


def test_pairs(classifier, tmp_path):
    (tmp_path / "in.csv").write_text("a,b\na good movie,who\nwho,a good movie\n", encoding="utf-8")
    predict(classifier, tmp_path / "in.csv", tmp_path / "out.csv", text_column="a", text_pair_column="b", quiet=True)
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    model = AutoModelForSequenceClassification.from_pretrained(classifier)
    with torch.inference_mode():
        probs = model.eval()(**tokenizer("a good movie", "who", return_tensors="pt")).logits.softmax(-1)[0]
    assert float(rows_of(tmp_path / "out.csv")[0]["probability"]) == pytest.approx(float(probs.max()), abs=2e-6)


def test_long_texts_are_truncated(classifier, tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "good " * 20_000}) + "\n", encoding="utf-8")
    assert predict(classifier, tmp_path / "in.jsonl", tmp_path / "out.csv", quiet=True, max_length=9999).rows == 1


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("Text,id\nx,1\n", {}, "Did you mean 'Text'?"),
        ("text,id\n", {}, "found none"),
        ("text,id\nx,1\ny\n", {}, "line 3"),
        ("text,id\nx,1\n", {"text_pair_column": "other"}, "Expected a column 'other'"),
    ],
)
def test_bad_tables_leave_nothing_behind(classifier, tmp_path, content, options, expected):
    (tmp_path / "in.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=expected.replace("?", r"\?")):
        predict(classifier, tmp_path / "in.csv", tmp_path / "out.csv", quiet=True, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_bad_outputs(classifier, table, tmp_path):
    with pytest.raises(ConfigurationError, match=r"ending in \.csv"):
        predict(classifier, table, tmp_path / "out.xlsx", quiet=True)
    (tmp_path / "out.csv").write_text("precious", encoding="utf-8")
    with pytest.raises(DataError, match="--overwrite"):
        predict(classifier, table, tmp_path / "out.csv", quiet=True)
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == "precious"
    predict(classifier, table, tmp_path / "out.csv", quiet=True, overwrite=True)
    assert len(rows_of(tmp_path / "out.csv")) == 5


def test_mixed_kinds_cannot_become_parquet(classifier, tmp_path):
    rows = [{"text": "who", "x": 1}, {"text": "what", "x": "one"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"ends in \.jsonl"):
        predict(classifier, tmp_path / "in.jsonl", tmp_path / "out.parquet", quiet=True)
    assert not (tmp_path / "out.parquet").exists()


def test_command(classifier, table, tmp_path, capsys):
    out = tmp_path / "out.csv"
    assert main(["predict", "--model", str(classifier), "--input", str(table), "--output", str(out), "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "5 rows written to" in shown
    assert "1 row has no text" in shown


def test_a_model_folder_that_is_none(table, tmp_path, capsys):
    argv = ["--model", str(tmp_path / "none"), "--input", str(table), "--output", str(tmp_path / "out.csv")]
    assert main(["predict", *argv]) == 2
    assert capsys.readouterr().err.startswith("hfssl: error: ")


def test_the_folder_of_a_run_names_its_model(table, classifier, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/model").symlink_to(classifier, target_is_directory=True)
    argv = ["--model", str(tmp_path / "run"), "--input", str(table), "--output", str(tmp_path / "out.csv")]
    assert main(["predict", *argv]) == 2
    assert f"it has no config.json: give '{tmp_path / 'run/model'}'." in capsys.readouterr().err


def test_a_full_disk_is_one_sentence(classifier, tmp_path):
    """The file-size limit of the process stands in for the end of the disk."""
    table = tmp_path / "in.jsonl"
    table.write_text(json.dumps({"text": "who", "note": "x" * 2_000_000}) + "\n", encoding="utf-8")
    words = ["predict", "--model", str(classifier), "--input", str(table), "--output", str(tmp_path / "out.csv")]
    done = subprocess.run(
        [sys.executable, "-m", "hfssl.cli.main", *words],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    assert done.returncode == 2
    assert "There is no room on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_mean_pooled_model_predicts_too(tmp_path, table, tiny_backbone):
    names = ["no", "yes"]
    load_classifier(tiny_backbone, names, pooling="mean", seed=0).save_pretrained(tmp_path / "model")
    load_tokenizer(tiny_backbone).save_pretrained(tmp_path / "model")
    predict(model=str(tmp_path / "model"), input=str(table), output=str(tmp_path / "out.csv"), quiet=True)
    rows = rows_of(tmp_path / "out.csv")
    assert {row["predicted_label"] for row in rows if row["text"]} <= set(names)
    assert len(rows) == len(TEXTS)


def test_texts_are_read_as_in_fit(classifier, tmp_path):
    """The case `predict_texts`: NaN, null and empty are no text; half a surrogate pair is replaced and counted."""
    (tmp_path / "in.jsonl").write_text(
        '{"text": "who \\ud83d", "note": "cut \\ud83d"}\n{"text": NaN}\n{"text": null}\n{"text": ""}\n{"text": 12}\n'
    )
    for suffix in (".jsonl", ".csv", ".parquet"):
        out = tmp_path / f"out{suffix}"
        if suffix == ".parquet":
            (tmp_path / "in.jsonl").write_text('{"text": "who \\ud83d", "note": "cut \\ud83d"}\n{"text": NaN}\n')
        summary = predict(classifier, tmp_path / "in.jsonl", out, quiet=True)
        rows = rows_of(out)
        assert (summary.replaced, summary.empty) == (2, len(rows) - (1 if suffix == ".parquet" else 2))
        assert (rows[0]["text"], rows[0]["note"]) == ("who ?", "cut ?")
        assert not any(row["predicted_label"] or row["text"] for row in rows[1:4])
        assert rows[0]["predicted_label"]
    (tmp_path / "in.jsonl").write_text('{"text": ["a"]}\n' * 2)  # one line would be a document of columns
    with pytest.raises(DataError, match="one text a row"):
        predict(classifier, tmp_path / "in.jsonl", tmp_path / "none.jsonl", quiet=True)


def test_several_labels_and_all_probabilities(classifier, table, tmp_path):
    summary = predict(classifier, table, tmp_path / "out.jsonl", quiet=True, top_k=3, all_probabilities=True)
    names = ['ham, "egg"', "spam", "größer"]
    assert summary.columns[3:] == [
        *("label_rank_2", "probability_rank_2", "label_rank_3", "probability_rank_3"),
        *(f"probability_{name}" for name in names),
    ]
    for row in rows_of(tmp_path / "out.jsonl"):
        if row["text"]:
            shares = {name: row[f"probability_{name}"] for name in names}
            assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
            ranked = sorted(names, key=shares.get, reverse=True)
            assert [row[column] for column in ("predicted_label", "label_rank_2", "label_rank_3")] == ranked
            assert row["probability_rank_2"] == shares[ranked[1]]
    with pytest.raises(ConfigurationError, match="from 1 to 3"):
        predict(classifier, table, tmp_path / "more.jsonl", quiet=True, top_k=4)


def test_an_onnx_folder_predicts_the_same(classifier, table, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra `onnx`")
    from hfssl.deploy.onnx_export import export_onnx

    export_onnx(classifier, tmp_path / "onnx")
    predict(classifier, table, tmp_path / "torch.jsonl", quiet=True)
    predict(tmp_path / "onnx", table, tmp_path / "onnx.jsonl", quiet=True)
    for torch_row, onnx_row in zip(rows_of(tmp_path / "torch.jsonl"), rows_of(tmp_path / "onnx.jsonl"), strict=True):
        assert torch_row["predicted_label"] == onnx_row["predicted_label"]
        assert torch_row["entropy"] == pytest.approx(onnx_row["entropy"], abs=1e-4)
