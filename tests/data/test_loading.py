"""Tables in every format load to the same rows, and each kind of bad table has an error of one clear sentence."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hfssl.data.loading import load_table
from hfssl.data.tables import read_rows
from hfssl.errors import ConfigurationError, DataError
from tests.helpers.refusals import refusal

ROWS = [("good film", "pos"), ("dull, slow film", "neg"), ('she said "wow"\nand left', ""), ("great fun", "pos")]


def write_csv(path, rows, header=("text", "label"), delimiter=","):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def make_csv(folder):
    return write_csv(folder / "t.csv", ROWS)


def make_tsv(folder):
    return write_csv(folder / "t.tsv", ROWS, delimiter="\t")


def make_jsonl(folder):
    path = folder / "t.jsonl"
    path.write_text("\n".join(json.dumps({"text": t, "label": y or None}) for t, y in ROWS), encoding="utf-8")
    return path


def make_parquet(folder):
    path = folder / "t.parquet"
    pq.write_table(pa.table({"text": [t for t, _ in ROWS], "label": [y or None for _, y in ROWS]}), path)
    return path


def make_folder_in_pieces(folder):
    write_csv(folder / "pieces_0.csv", ROWS[:2])
    write_csv(folder / "pieces_1.csv", ROWS[2:])
    return folder


def make_folder_of_splits(folder):
    write_csv(folder / "test.csv", [("other", "x")])
    write_csv(folder / "train.csv", ROWS)
    return folder


def make_saved(folder):
    Dataset.from_dict({"text": [t for t, _ in ROWS], "label": [y for _, y in ROWS]}).save_to_disk(folder / "saved")
    return folder / "saved"


def make_saved_dict(folder):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    labels = [1, 0, -1, 1]
    train = Dataset.from_dict({"text": [t for t, _ in ROWS], "label": labels}, features=features)
    DatasetDict(train=train, test=train.select([0])).save_to_disk(folder / "saved")
    return folder / "saved"


@pytest.mark.parametrize(
    "make",
    [
        make_csv,
        make_tsv,
        make_jsonl,
        make_parquet,
        make_folder_in_pieces,
        make_folder_of_splits,
        make_saved,
        make_saved_dict,
    ],
)
def test_every_kind_of_table_gives_the_same_rows(tmp_path, make):
    table = load_table(make(tmp_path))
    assert table.features["label"].names == ["neg", "pos"]
    assert table["label"][:] == [1, 0, -1, 1]
    assert table["text"][:] == [text for text, _ in ROWS]
    assert table["id"][:] == ["0", "1", "2", "3"]
    assert table.column_names == ["text", "label", "id", "truncated"]


def test_class_names_of_a_parquet_file_survive(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["ham", "spam"])})
    Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features).to_parquet(tmp_path / "t.parquet")
    table = load_table(tmp_path / "t.parquet")
    assert table.features["label"].names == ["ham", "spam"]
    assert table["label"][:] == [1, 0]


def test_byte_order_mark_and_blank_lines_are_no_part_of_the_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\r\na,x\r\n\r\nb,y\r\n")
    assert load_table(path)["text"][:] == ["a", "b"]


def test_further_columns_pair_group_and_id(tmp_path):
    header = ("question", "answer", "y", "who", "key")
    path = write_csv(tmp_path / "t.csv", [("q1", "a1", "0", "ann", "k1"), ("q2", "", "1", "", "k2")], header)
    table = load_table(
        path,
        "question",
        "y",
        text_pair_column="answer",
        group_column="who",
        id_column="key",
        label_names=["no", "yes"],
    )
    assert table[0] == {"text": "q1", "text_pair": "a1", "label": 0, "group": "ann", "id": "k1", "truncated": False}
    assert table[1] == {"text": "q2", "text_pair": "", "label": 1, "group": "", "id": "k2", "truncated": False}


@pytest.mark.parametrize(
    ("raw", "label_names", "names", "labels"),
    [
        ([10, 2, None, 10], None, ["2", "10"], [1, 0, -1, 1]),  # numerical, not alphabetical
        ([1, -1, None, 1], None, ["-1", "1"], [1, 0, -1, 1]),  # a class, in files
        (["10", "2", "", "10"], None, ["2", "10"], [1, 0, -1, 1]),
        (["1.0", "0.0", "", "1.0"], None, ["0", "1"], [1, 0, -1, 1]),  # what pandas writes where values are missing
        ([1.0, 0.0, None, float("nan")], None, ["0", "1"], [1, 0, -1, -1]),
        ([2, 0, -1, 1], ["a", "b", "c"], ["a", "b", "c"], [2, 0, -1, 1]),  # positions
        ([2, 1, -1, 1], ["1", "2"], ["1", "2"], [1, 0, -1, 0]),  # names
        (["007", "7", None, "7"], None, ["007", "7"], [0, 1, -1, 1]),  # codes are not numbers
        ([" b", "a ", "  ", "n/a"], None, ["a", "b"], [1, 0, -1, -1]),
        (["1,0", "2,5", "", "1"], None, ["1", "2.5"], [0, 1, -1, 0]),  # decimal commas
        ([True, False, None, True], None, ["False", "True"], [1, 0, -1, 1]),
        (["b", "a", None, "a"], ["b", "a", "c"], ["b", "a", "c"], [0, 1, -1, 1]),
    ],
)
def test_labels(tmp_path, raw, label_names, names, labels):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps({"text": "t", "label": y}) for y in raw))
    table = load_table(path, label_names=label_names)
    assert table.features["label"].names == names
    assert table["label"][:] == labels


def test_an_unlabeled_table_needs_no_label_column(tmp_path):
    table = load_table(write_csv(tmp_path / "t.csv", [("a",), ("b",)], ("text",)), label_column=None)
    assert table["label"][:] == [-1, -1]


def test_a_key_that_some_json_lines_leave_out_is_a_missing_label(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b", "label": "x"}\n')
    assert load_table(path)["label"][:] == [-1, 0]


def test_very_long_texts_are_cut_and_marked(tmp_path):
    path = write_csv(tmp_path / "t.csv", [("x" * 200_000, "a"), ("y" * 100_000, "b"), ("short", "a")])
    table = load_table(path, max_characters=50_000)
    assert [len(text) for text in table["text"]] == [50_000, 50_000, 5]
    assert table["truncated"][:] == [True, True, False]
    with pytest.raises(ConfigurationError, match="max_characters of at least 1, got 0"):
        load_table(path, max_characters=0)


def test_half_a_surrogate_pair_in_json_does_not_crash(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "cut \\ud83d", "label": "a"}\n')
    assert load_table(path)["text"][:] == ["cut ?"]


def test_missing_file_names_a_near_match(tmp_path):
    write_csv(tmp_path / "reviews.csv", ROWS)
    message = refusal(load_table, tmp_path / "review.csv")
    assert "there is no such file" in message
    assert "Did you mean 'reviews.csv'?" in message


def test_a_name_that_is_neither_here_nor_on_the_hub():
    # conftest.py sets HF_HUB_OFFLINE, so this never leaves the machine.
    message = refusal(load_table, "no-such-owner/no-such-data")
    assert "got 'no-such-owner/no-such-data'" in message
    assert "save the data set to a folder" in message


def test_unknown_kind_of_file(tmp_path):
    (tmp_path / "t.pdf").write_bytes(b"%PDF")
    assert "expected a file ending in .csv, .tsv, .tab, .txt, .jsonl," in refusal(load_table, tmp_path / "t.pdf")
    for name, start, kind in (
        ("t.csv", b"PK\x03\x04", "a workbook or a zip archive: rename it to .xlsx"),
        ("t.txt", b"PAR1", "a Parquet file: rename it to .parquet"),
        ("t.json", b"ARROW1", "an Arrow or Feather file: rename it to .feather"),
    ):
        (tmp_path / name).write_bytes(start + b" and more")
        assert kind in refusal(load_table, tmp_path / name)


def test_missing_column_names_a_near_match(tmp_path):
    message = refusal(load_table, write_csv(tmp_path / "t.csv", ROWS), text_column="texts")
    assert "expected a column 'texts'" in message
    assert (
        "found 'text', 'label'. Did you mean 'text'? Name the right one with --text-column (text_column=)." in message
    )
    assert "--label-column (label_column=)" in refusal(load_table, tmp_path / "t.csv", label_column="lable")


@pytest.mark.parametrize("content", ["", "text,label\n"])
def test_empty_file(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_text(content)
    assert "expected rows in" in refusal(load_table, path)


def test_empty_folder_and_missing_split(tmp_path):
    assert "found neither" in refusal(load_table, tmp_path)
    write_csv(tmp_path / "test.csv", ROWS)
    write_csv(tmp_path / "dev.csv", ROWS)
    assert "expected a file for the split 'train'" in refusal(load_table, tmp_path)
    make_saved_dict(tmp_path)
    assert "Did you mean 'train'?" in refusal(load_table, tmp_path / "saved", split="trian")


def test_duplicate_ids_are_named_with_their_lines(tmp_path):
    path = write_csv(tmp_path / "t.csv", [("a", "x", "7"), ("b", "y", "8"), ("c", "y", "7")], ("text", "label", "key"))
    message = refusal(load_table, path, id_column="key")
    assert "expected a different id in each row" in message
    assert "'7' twice" in message
    assert "line 2 " in message
    assert "line 4)" in message


def test_one_broken_byte_among_many_letters_is_named_with_its_line(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('text,label\n"zwei\nZeilen für",x\nGrüße,y\nschön,x\nspät,y\n'.encode() + b"caf\xe9,y\n")
    assert "got the byte 0xe9 on line 7: correct that line" in refusal(load_table, path)
    path.write_bytes(b"text,label\na,x\nb\x81,y\n")
    assert "expected cp1252 text in" in refusal(load_table, path, encoding="cp1252")


def test_ragged_csv_names_the_line(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('text,label\n"two\nlines",x\nwell, no,y\n')
    message = refusal(load_table, path)
    assert "expected 2 fields as in the header" in message
    assert "got 3 on line 4: put texts that hold a comma in double quotes" in message


def test_an_unclosed_quote_names_the_line_where_it_opens(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('text,label\na,x\n"never closed,y\nb,x\n')
    assert "a broken row that starts on line 3" in refusal(load_table, path)


def test_a_column_twice(tmp_path):
    assert "got 'label' more than once" in refusal(
        load_table, write_csv(tmp_path / "t.csv", [("a", "x", "y")], ("text", "label", "label"))
    )


def test_broken_json_names_the_line(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"text": \n')
    assert "broken JSON on line 2" in refusal(load_table, path)
    path.write_text('["a", "x"]\n')
    assert "got a list on line 1" in refusal(load_table, path)


def test_a_file_that_is_not_parquet(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"text,label\na,x\n")
    assert "cannot be read as one" in refusal(load_table, tmp_path / "t.parquet")


def test_all_texts_empty(tmp_path):
    path = write_csv(tmp_path / "t.csv", [("", "x"), ("  ", "y")])
    assert "got 2 empty ones: name the column that holds the text" in refusal(load_table, path)


def test_an_unknown_label_is_named(tmp_path):
    path = write_csv(tmp_path / "t.csv", [("a", "positive"), ("b", "negativ")])
    message = refusal(load_table, path, label_names=["positive", "negative"])
    assert "got 'negativ' at" in message
    assert "line 3. Did you mean 'negative'?" in message
    numbers = write_csv(tmp_path / "n.csv", [("a", "0"), ("b", "2")])
    assert "expected integer labels from 0 to 1" in refusal(load_table, numbers, label_names=["no", "yes"])


@pytest.mark.parametrize("column", ["text", "label"])
def test_lists_are_neither_texts_nor_labels(tmp_path, column):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"text": "a", "label": "x"} | {column: ["p", "q"]}) + "\n")
    message = refusal(load_table, path)
    assert f"expected one {column} a row" in message
    assert "got a list at" in message


def test_rows_are_streamed_once_the_whole_file_is_known_to_be_sound(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\na,x\nbroken\n")
    with pytest.raises(DataError, match="got 1 on line 3"):
        next(read_rows(path))
    path.write_text("text,label\na,x\n")
    assert next(read_rows(path)) == (2, {"text": "a", "label": "x"})


def test_names_of_integer_labels_lie_beside_the_table(tmp_path):
    path = write_csv(tmp_path / "t.csv", [("a", "1"), ("b", "0"), ("c", ""), ("d", "-1")])
    names = tmp_path / "labels.json"
    names.write_text('["no", "yes", "maybe"]')
    table = load_table(path)
    assert table.features["label"].names == ["no", "yes", "maybe"]
    assert table["label"][:] == [1, 0, -1, -1]
    assert load_table(path, label_names=["bad", "good"]).features["label"].names == ["bad", "good"]
    for other in ('["no"]', '{"no": 0}', '["no", "no"]', '["no", 1]', "no"):  # too few, or another kind of file
        names.write_text(other)
        assert load_table(path).features["label"].names == ["-1", "0", "1"]  # without names, -1 is one
    names.write_text('["no", "yes"]')
    words = write_csv(tmp_path / "w.csv", [("a", "x"), ("b", "y")])
    assert load_table(words).features["label"].names == ["x", "y"]
