"""Written tables, read back by pandas, Python's csv module, pyarrow and hfssl itself."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
import pytest

from hfssl.data.tables import read_rows
from hfssl.data.writing import table_writer
from hfssl.errors import ConfigurationError

ROWS = 10_000
SPECIAL = list("\r\n\t\0\"',;=+-@| \x0b\x0c\x1c\x85\u2028\u2029\ufeff\u200b\u0301\ud83d\ude00\U0001f600a1")


@pytest.fixture(scope="module")
def texts():
    """Random texts: special characters, letters of all planes, and halves of surrogate pairs."""
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 0x110000, size=(ROWS, 4))
    special = generator.integers(len(SPECIAL), size=(ROWS, 4))
    lengths = generator.integers(0, 9, size=ROWS)
    return [
        "".join(generator.permutation([*map(chr, code), *(SPECIAL[at] for at in places)])[:length])
        for code, places, length in zip(codes.tolist(), special.tolist(), lengths.tolist(), strict=True)
    ]


def written(path, texts, **options):
    with table_writer(
        path, path.suffix, path.with_suffix(".jsonl"), ["text"], {"number": pa.float64()}, **options
    ) as writer:
        for start in range(0, len(texts), 3000):
            rows = [{"text": text, "number": 0.5} for text in texts[start : start + 3000]]
            writer.write(rows)
    return writer


def without_halves(texts):
    return [text.encode("utf-8", "replace").decode() for text in texts]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_delimited_texts_come_back(texts, tmp_path, suffix):
    path, delimiter = tmp_path / f"table{suffix}", "," if suffix == ".csv" else "\t"
    expected = [text.replace("\0", "?") for text in without_halves(texts)]
    writer = written(path, texts)
    assert writer.replaced == sum(any("\ud800" <= c <= "\udfff" for c in text) + ("\0" in text) for text in texts)
    with open(path, encoding="utf-8", newline="") as file:
        assert [row["text"] for row in csv.DictReader(file, delimiter=delimiter)] == expected
    frame = pd.read_csv(path, sep=delimiter, keep_default_na=False, dtype={"text": str})
    assert frame["text"].tolist() == expected
    table = pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types={"text": pa.string()}),
    )
    assert table["text"].to_pylist() == expected
    assert [row["text"] for _, row in read_rows(path)] == expected


def test_json_lines_and_parquet_come_back(texts, tmp_path):
    expected = without_halves(texts)
    halves = sum(any("\ud800" <= c <= "\udfff" for c in text) for text in texts)
    assert written(tmp_path / "table.jsonl", texts).replaced == halves > 100
    assert [row["text"] for _, row in read_rows(tmp_path / "table.jsonl")] == expected
    assert pyarrow.json.read_json(tmp_path / "table.jsonl")["text"].to_pylist() == expected
    frame = pd.read_json(tmp_path / "table.jsonl", lines=True, dtype=False)
    assert frame["text"].tolist() == expected
    assert written(tmp_path / "table.parquet", texts).replaced == halves
    assert pq.read_table(tmp_path / "table.parquet")["text"].to_pylist() == expected
    assert pd.read_parquet(tmp_path / "table.parquet")["text"].tolist() == expected


def test_halves_within_lists_and_column_names_and_nan(tmp_path):
    path = tmp_path / "table.jsonl"
    with table_writer(path, ".jsonl", path, [], {}) as writer:
        writer.write([{"a\ud83d": ["x\ud83d", {"y\ud83d": 1}], "b": float("nan"), "c": "fine"}])
    assert json.loads(path.read_text(encoding="utf-8")) == {"a?": ["x?", {"y?": 1}], "b": None, "c": "fine"}
    assert writer.replaced == 1


def test_a_spreadsheet_runs_no_formula(tmp_path):
    texts = ["=1+1", "+cmd", "-2.5", "-x", "@SUM(A1)", "\tx", "plain", "1=1", "+49 30 1234", "-3%"]
    writer = written(tmp_path / "table.csv", texts, spreadsheet=True)
    assert (tmp_path / "table.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    found = pd.read_csv(tmp_path / "table.csv", keep_default_na=False, dtype=str)["text"].tolist()
    assert found == ["'=1+1", "'+cmd", "-2.5", "'-x", "'@SUM(A1)", "'\tx", "plain", "1=1", "'+49 30 1234", "-3%"]
    assert writer.neutralized == 6
    with pytest.raises(ConfigurationError, match=r"\.csv or \.tsv"):
        written(tmp_path / "table.jsonl", texts, spreadsheet=True)
