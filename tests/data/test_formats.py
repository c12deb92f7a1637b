"""Delimiters, encodings, quotes, JSON, Arrow and workbooks: what people save is read as it is meant, and told."""

from __future__ import annotations

import gzip
import json
from datetime import date

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hfssl.data.formats.base import TableOptions
from hfssl.data.formats.encodings import detect_encoding
from hfssl.data.loading import load_table, read_table
from hfssl.data.tables import read_rows
from hfssl.errors import ConfigurationError
from tests.helpers.refusals import refusal

GERMAN = "die Größe passt nicht, leider;schöne Qualität für den Preis – 12,50 €;der Kundendienst hörte nicht zu"


def read(path, **options):
    wanted = {"text_column": "text", "label_column": "label"}
    table, notices = read_table(path, wanted, options=TableOptions(**options))
    names = table.features["label"].names
    return table["text"][:], [names[y] if y >= 0 else None for y in table["label"][:]], notices


def written(folder, content, name="t.csv"):
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"])
def test_delimiter_and_encoding_are_detected_and_told(tmp_path, delimiter, encoding):
    texts = GERMAN.split(";")
    lines = [delimiter.join(["id", "text", "label"])]
    lines += [delimiter.join([str(row), f'"{text}"', "ab"[row % 2]]) for row, text in enumerate(texts)]
    path = written(tmp_path, "\r\n".join(lines).encode(encoding))
    got, labels, notices = read(path)
    assert (got, labels) == (texts, ["a", "b", "a"])
    if delimiter == "," and encoding.startswith("utf-8"):
        assert notices == []
    else:
        name = {"utf-8-sig": "UTF-8", "utf-8": "UTF-8", "utf-16": "UTF-16"}.get(encoding, encoding)
        mark = "tab" if delimiter == "\t" else f"`{delimiter}`"
        assert notices[0].startswith(f"'t.csv' is read as {mark}-separated {name}")


def test_a_wrong_guess_is_overridden(tmp_path):
    raw = "text;label\nžlu a běž;a\nkůň;b\n".encode("cp1250")
    path = written(tmp_path, raw)
    assert read(path, encoding="cp1250")[0] == ["žlu a běž", "kůň"]
    assert read(path, encoding="cp1252")[0] == [t.encode("cp1250").decode("cp1252") for t in ("žlu a běž", "kůň")]
    assert refusal(read, path, delimiter=",").startswith("expected comma-separated columns")
    assert read(written(tmp_path, "text;label\na,1;x\nb;y\n"), delimiter="semicolon")[0] == ["a,1", "b"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"delimiter": "||"}, "delimiter must be one character"), ({"encoding": "utf-9"}, "that Python knows")],
)
def test_format_options_without_a_meaning(options, problem):
    with pytest.raises(ConfigurationError, match=problem):
        TableOptions(**options)


@pytest.mark.parametrize(
    ("language", "codec", "text"),
    [
        ("Polish", "cp1250", "Paczka przyszła za późno i nikt nie odpowiedział"),
        ("Russian", "cp1251", "Посылка пришла поздно, и никто не ответил"),
        ("Russian", "koi8_r", "Посылка пришла поздно, и никто не ответил"),
        ("Greek", "cp1253", "Το δέμα έφτασε αργά και κανείς δεν απάντησε"),
        ("Turkish", "cp1254", "ığdır şehri güzel, teşekkürler, paramı geri istiyorum"),
        ("Japanese", "cp932", "荷物が遅れて届き、誰も返事をしませんでした"),
        ("Japanese", "euc_jp", "荷物が遅れて届き、誰も返事をしませんでした"),
        ("Chinese", "gb18030", "包裹到得很晚，没有人回答，质量很好，但是价格太高"),
        ("Korean", "cp949", "택배가 늦게 도착했고 아무도 대답하지 않았습니다"),
        ("French", "mac_roman", "le garçon était gêné, je suis déçu du délai"),
    ],
)
def test_local_encodings_by_their_letters(tmp_path, language, codec, text):
    raw = f"text;label\n{text};a\n{text};b\n".encode(codec)
    assert raw.decode(detect_encoding(written(tmp_path, raw)).codec) == raw.decode(codec)


@pytest.mark.parametrize(
    ("content", "texts", "remark"),
    [
        ('text, label\n"a, b", x\n"c", "y, z"\n', ["a, b", "c"], "spaces after delimiters are left out"),
        ('text,label\n"a \\"b\\" c",x\n"d",y\n', ['a "b" c', "d"], "marked by a backslash"),
        ("'text','label'\n'a, b','x'\n'c','y'\n", ["a, b", "c"], "quoted by '"),
        ("text,label\na,x,,\nb,y,,\n", ["a", "b"], "empty cells at the ends of lines"),
        ("text\tlabel\n\"so\" he said\tx\nb\ty\n", ['"so" he said', "b"], "quotes are part of the cells"),
        ("sep=;\ntext;label\na;x\nb;y\n", ["a", "b"], "`;`-separated"),
        ("text^label\na^x\nb^y\n", ["a", "b"], "`^`-separated"),
    ],
)  # fmt: skip
def test_ways_to_quote(tmp_path, content, texts, remark):
    got, _, notices = read(written(tmp_path, content, "t.tsv" if "\t" in content else "t.csv"))
    assert got == texts
    assert remark in notices[0]


@pytest.mark.parametrize("ends", ["\r", "\r\n", "\r\r\n"])
def test_line_ends_of_all_systems(tmp_path, ends):
    content = ends.join(["text,label", '"two\nlines",x', "b,y", ""])
    assert read(written(tmp_path, content))[:2] == (["two\nlines", "b"], ["x", "y"])


def test_a_column_with_a_text_in_another_unicode_form(tmp_path):
    path = written(tmp_path, "Gro\u0308ße,label\na,x\nb,y\n")
    assert load_table(path, "Größe")["text"][:] == ["a", "b"]


def test_a_column_twice_matters_only_if_it_is_used(tmp_path):
    path = written(tmp_path, "text,n,n,label\na,1,2,x\nb,1,2,y\n")
    assert read(path)[2] == ["'t.csv' has the column 'n' more than once; it is not used."]
    assert "got 'n' more than once" in refusal(next, read_rows(path))


def test_repeated_keys_of_json(tmp_path):
    lines = ['{"text": "a", "label": "x", "n": 1, "n": 2}', '{"text": "b", "label": "y"}']
    path = written(tmp_path, "\n".join(lines), "t.jsonl")
    assert read(path)[2] == ["'t.jsonl' has objects with the key 'n' more than once; the last counts."]
    path.write_text('{"text": "a", "label": "x", "label": "y"}\n')
    assert "got 'label' with different values on line 1" in refusal(read, path)


def test_rows_without_the_label_key_are_counted(tmp_path):
    rows = [{"text": "a", "label": "x"}, {"text": "b", "Label": "y"}, {"text": "c", "label": "y"}]
    got = read(written(tmp_path, "\n".join(map(json.dumps, rows)), "t.jsonl"))
    assert got[1] == ["x", None, "y"]
    assert "1 of 3 rows of" in got[2][0]
    assert "lack the key 'label' and count as unlabeled (others have the key 'Label')." in got[2][0]


@pytest.mark.parametrize("orient", ["records", "columns", "index", "split", "table"])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_as_pandas_writes_it(tmp_path, orient, indent):
    frame = pd.DataFrame({"text": ["a b", "c d"], "label": ["x", None]})
    frame.to_json(tmp_path / "t.json", orient=orient, indent=indent)
    assert read(tmp_path / "t.json")[:2] == (["a b", "c d"], ["x", None])


def test_compressed_files_by_their_content(tmp_path):
    frame = pd.DataFrame({"text": ["a b", "c d"], "label": ["x", "y"]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    frame.to_feather(tmp_path / "t.feather")
    for name in ("t.csv", "t.parquet", "t.xlsx", "t.feather"):
        packed = written(tmp_path, gzip.compress((tmp_path / name).read_bytes()), f"{name}.gz")
        assert read(packed)[:2] == (["a b", "c d"], ["x", "y"])
    cut = written(tmp_path, gzip.compress(b"text,label\n" + bytes(range(32, 127)) * 50)[:60], "cut.csv.gz")
    assert "expected a readable file" in refusal(read, cut)


def test_workbooks_by_sheet(tmp_path):
    path = tmp_path / "t.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"notes": ["n"]}).to_excel(book, sheet_name="Notes", index=False)
        first = pd.DataFrame({"text": ["a", "b"], "label": [1, 2.0]})
        first.to_excel(book, sheet_name="One", index=False, startrow=2)
        pd.DataFrame({"text": ["c"], "label": ["#N/A"]}).to_excel(book, sheet_name="test", index=False)
    texts, labels, notices = read(path)
    assert (texts, labels) == (["a", "b"], ["1", "2"])
    assert "read from its sheet 'One' (the others are 'Notes', 'test'" in notices[0]
    assert read(path, sheet="test")[:2] == (["c"], [None])
    assert load_table(f"{path}:test")["text"][:] == ["c"]
    assert load_table(path, split="test")["text"][:] == ["c"]
    assert "Did you mean 'test'?" in refusal(read, path, sheet="tests")


def test_columns_of_odd_types_are_not_read(tmp_path):
    odd = {
        "map": pa.array([[("a", 1)]] * 2, pa.map_(pa.string(), pa.int64())),
        "struct": pa.array([{"a": date(2026, 1, 1)}] * 2),
        "duration": pa.array([1, 2], pa.duration("us")),
    }
    table = pa.table({**odd, "text": ["a", "b"], "label": pa.array(["x", "y"]).dictionary_encode()})
    unknown = {"info": {"features": {"map": {"_type": "NoSuchFeature"}, "label": {"_type": "Value"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(unknown)})
    pq.write_table(table, tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet")[:2] == (["a", "b"], ["x", "y"])
    with pa.ipc.new_stream(str(tmp_path / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    assert read(tmp_path / "t.arrow")[:2] == (["a", "b"], ["x", "y"])


@pytest.mark.parametrize("kind", ["torch", "numpy", "pandas", "arrow", "jax"])
def test_saved_data_sets_with_any_format_set(tmp_path, kind):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"]), "n": Value("int64")})
    dataset = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1], "n": [1, 2, 3]}, features=features)
    dataset.select([2, 0, 1]).save_to_disk(tmp_path / "saved")
    state = json.loads((tmp_path / "saved" / "state.json").read_text())
    state |= {"_format_type": kind, "_format_columns": ["n"]}  # jax is not installed here
    (tmp_path / "saved" / "state.json").write_text(json.dumps(state))
    texts, labels, notices = read(tmp_path / "saved")
    assert (texts, labels) == (["c", "a", "b"], [None, "yes", "no"])
    assert notices == ["the label -1 means unlabeled in 1 row of 'saved'."]


def test_splits_by_name(tmp_path):
    made = {name: Dataset.from_dict({"text": [name], "label": ["x"]}) for name in ("train", "test", "extra")}
    DatasetDict(made).save_to_disk(tmp_path / "saved")
    (tmp_path / "folder").mkdir()
    for name in made:
        made[name].to_csv(tmp_path / "folder" / f"{name}.csv", index=False)
    for source in ("saved", "folder"):
        path = tmp_path / source
        assert load_table(path)["text"][:] == ["train"]
        assert load_table(path, split="test")["text"][:] == ["test"]
        assert load_table(f"{path}:extra")["text"][:] == ["extra"]
        assert "expected" in refusal(load_table, f"{path}:other")
        assert "'validation'" in refusal(load_table, path, split="validation")


def test_the_only_split_is_read_and_told(tmp_path):
    DatasetDict(train=Dataset.from_dict({"text": ["a"], "label": ["x"]})).save_to_disk(tmp_path / "saved")
    _, notices = read_table(tmp_path / "saved", {"text_column": "text", "label_column": "label"}, split="test")
    assert notices == [f"'{tmp_path / 'saved'}' has no split 'test'; its split 'train' is read."]
