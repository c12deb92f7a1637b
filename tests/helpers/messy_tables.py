"""Generates tables as people have them: a truth, and a file that holds it in one of many forms, sometimes broken."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import strategies as st

SENTENCES = {
    "english": "the parcel came late|my card was charged twice|the staff was kind|price 12.50 and no refund"
    "|a café nearby|it’s a “fine” place – really|naïve people call it good",
    "german": "die Lieferung kam zu spät|der Kundendienst hörte nicht zu|die Größe passt nicht"
    "|ich möchte mein Geld zurück|überraschend schöne Qualität|Jürgen grüßt herzlich aus München",
    "french": "le colis est arrivé très tard|j’ai été facturé deux fois|le garçon était gêné|je suis déçu du délai"
    "|où est le remboursement, s’il vous plaît",
    "polish": "paczka przyszła za późno|nikt nie odpowiedział|jakość jest świetna|proszę o zwrot pieniędzy, dziękuję"
    "|książka była zniszczona|źle działa łącze",
    "czech": "balík přišel pozdě|nikdo neodpověděl|kvalita je skvělá|děkuji za rychlé vyřízení|žádám o vrácení peněz",
    "russian": "посылка пришла поздно|никто не ответил|качество отличное|прошу вернуть деньги"
    "|спасибо за быструю помощь",
    "greek": "το δέμα έφτασε αργά|κανείς δεν απάντησε|η ποιότητα είναι εξαιρετική|η τιμή είναι πολύ υψηλή",
    "turkish": "paket geç geldi|kimse cevap vermedi|teşekkürler, paramı geri istiyorum"
    "|ığdır şehri güzel|kalite çok iyi ama",
    "japanese": "荷物が遅れて届きました|誰も返事をしませんでした|品質は素晴らしいです|返金してください",
    "chinese": "包裹到得很晚|没有人回答我的问题|质量很好但是价格太高|请退款谢谢|服务态度非常差",
    "korean": "택배가 늦게 도착했습니다|아무도 대답하지 않았습니다|품질은 좋지만 비쌉니다|환불해 주세요",
}
LOCAL = {
    "english": ("cp1252", "latin-1"),
    "german": ("cp1252", "cp850", "mac_roman"),
    "french": ("cp1252", "iso8859_15"),
    "polish": ("cp1250", "iso8859_2"),
    "czech": ("cp1250",),
    "russian": ("cp1251", "koi8_r"),
    "greek": ("cp1253",),
    "turkish": ("cp1254",),
    "japanese": ("cp932", "euc_jp"),
    "chinese": ("gb18030",),
    "korean": ("cp949",),
}
WIDE = ("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
ODD_TEXTS = (
    'he said "no", twice',
    "one; two; three",
    "a\ttab",
    "a | b, c",
    "first line\nsecond line",
    "it's 'fine'",
    " x ",
)
CLASSES = (("billing", "travel"), ("Ärger", "Lob", "Frage"), ("pos", "neg", "none of these"), ("no", "yes"))
NOTHING = ("#N/A", "n/a", "N/A", "NULL", "nan", "NaN", "<NA>", "null", "None", "-", "?", "")
# What people do to files that can still be read, and what makes them unreadable.
SLIPS = ("repeated column", "blank lines", "delimiters at the ends", "sep=", "empty rows")
BROKEN = ("ragged", "unclosed", "repeated label", "cut archive")


@dataclass
class MessyTable:
    """Holds a truth and how it is written.

    Attributes:
        texts, labels: The rows as they are meant; a label of `None` is unlabeled.
        kinds: Names of the forms and faults in it; those with a colon are details of another kind.
        write: Function that writes it into a folder and returns what `load_table` gets.
        encoding: Encoding of a text file, for the override where it cannot be told.
        options: Keyword arguments that such a table needs.
        broken: What makes the file unreadable, so that an error is right, too.
    """

    texts: list[str]
    labels: list[str | None]
    kinds: list[str]
    write: Callable[[Path], str]
    encoding: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    broken: str | None = None


def messy_tables() -> st.SearchStrategy[MessyTable]:
    """Returns a strategy for tables, uniform over all forms: hypothesis itself would repeat the same few."""
    return st.randoms(use_true_random=True).map(_table)


def _table(draw: Random) -> MessyTable:
    """Draws a table, its spelling, and its file."""
    language = draw.choice(sorted(SENTENCES))
    container = draw.choice(["delimited"] * 6 + ["jsonl", "json", "xlsx", "xlsx", "parquet", "arrow", "saved", "dict"])
    local = container == "delimited" and draw.randint(0, 2) == 0
    encoding = draw.choice(LOCAL[language] if local else WIDE if container == "delimited" else ("utf-8",))
    texts = _texts(draw, language, encoding)
    classes, labels, spelled, kinds = _labels(draw, len(texts), encoding)
    kinds += [container, language]
    if container == "delimited":
        return _delimited(
            draw,
            texts,
            labels,
            spelled,
            [*kinds, encoding if encoding.startswith("utf") else "local encoding", f"encoding: {encoding}"],
            encoding,
        )
    writers = {"jsonl": _jsonl, "json": _json, "xlsx": _xlsx, "parquet": _parquet, "arrow": _arrow}
    if container in writers:
        return writers[container](draw, texts, labels, spelled, kinds)
    return _saved(draw, texts, labels, classes, kinds, several=container == "dict")


def _texts(draw: Random, language: str, encoding: str) -> list[str]:
    sentences = SENTENCES[language].split("|")
    count = draw.randint(16, 40)
    texts = []
    for row in range(count):
        parts = draw.choices(sentences, k=draw.randint(1, 3))
        text = f"{', '.join(parts)} {row}"
        if draw.randint(0, 4) == 0:
            text += draw.choice(ODD_TEXTS)
        if encoding.startswith("utf") and draw.randint(0, 7) == 0:
            text += draw.choice(["😀", "\u2028next", "naïve", "e\u0301", "‮rtl"])
        texts.append(text.encode(encoding, "ignore").decode(encoding))
    return texts


def _labels(draw: Random, count: int, encoding: str) -> tuple[list[str], list[str | None], list[str], list[str]]:
    """Draws labels as they are meant and as they are spelled."""
    kind = draw.choice(["plain", "variants", "nothing", "numbers", "decimal zeros"])
    names = ["0", "1", "2"] if kind in ("numbers", "decimal zeros") else list(draw.choice(CLASSES))
    names = [name.encode(encoding, "ignore").decode(encoding) for name in names]
    labels: list[str | None] = [names[row % len(names)] if row < 12 else None for row in range(count)]
    spelled = [label or "" for label in labels]
    nothing = draw.choice(NOTHING)
    rare = min(2, count - 12)  # as often as no class: else hfssl asks
    if kind == "variants":
        change = draw.choice([str.upper, lambda x: x + " ", lambda x: "  " + x, str.capitalize])
        spelled = [change(text) if row % 4 == 3 else text for row, text in enumerate(spelled)]
    if kind == "nothing":
        spelled = [
            nothing if label is None and row < 12 + rare else text
            for row, (label, text) in enumerate(zip(labels, spelled, strict=True))
        ]
    if kind == "decimal zeros":
        spelled = [f"{text}.0" if text else "" for text in spelled]
    return names, labels, spelled, [f"labels {kind}"]


def _delimited(
    draw: Random, texts: list[str], labels: list[str | None], spelled: list[str], kinds: list[str], encoding: str
) -> MessyTable:
    delimiter = draw.choice([",", ";", "\t", "|"])
    suffix = draw.choice([".csv", ".csv", ".txt", ".tsv"])
    ends = draw.choice(["\n", "\r\n", "\r\n", "\r"])
    quoting = draw.choice(["minimal", "minimal", "all", "space", "backslash", "single"])
    packing = draw.choice(["", "", "", ".gz", ".bz2", ".xz"])
    slip = draw.choice([None, None, *SLIPS])
    broken = draw.choice([None] * 28 + list(BROKEN))
    comma = "labels decimal zeros" in kinds and draw.random() < 0.5
    header = ["id", "text", "amount", "label"]
    if slip == "repeated column" or broken == "repeated label":
        header[0] = "label" if broken == "repeated label" else "amount"
    if comma:
        spelled, kinds = [text.replace(".", ",") for text in spelled], [*kinds, "decimal comma"]
    decimal = "," if delimiter == ";" else "."
    rows = [header, *[[str(r), t, f"{r}{decimal}50", s] for r, (t, s) in enumerate(zip(texts, spelled, strict=True))]]
    lines = [_line(row, delimiter, quoting) for row in rows]
    if slip == "delimiters at the ends":
        lines = [lines[0], *[line + 2 * delimiter for line in lines[1:]]]
    if slip == "empty rows":
        lines += [3 * delimiter] * 2
    if broken == "ragged":
        lines[draw.randint(1, len(lines) - 1)] += f"{delimiter}more{delimiter}fields"
    if broken == "unclosed":
        texts = [*texts[:-1], '"an open quote']
        lines[len(texts)] = f'{len(texts) - 1}{delimiter}"an open quote{delimiter}1{delimiter}'
        labels = [*labels[:-1], None]
    if slip == "blank lines":
        lines.insert(draw.randint(1, len(lines)), "")
    if slip == "sep=":
        lines.insert(0, f"sep={delimiter}")
    raw = (ends.join(lines) + ends).encode(encoding)
    kinds = [*kinds, f"delimiter {delimiter!r}", f"ends {ends!r}", f"quotes {quoting}", f"packing {packing or 'none'}"]

    def write(folder: Path) -> str:
        path = folder / f"table{suffix}{packing}"
        packed = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[packing](raw)
        path.write_bytes(packed[: len(packed) // 2] if broken == "cut archive" and packing else packed)
        return str(path)

    kinds += [f"slip {slip}"] if slip else []
    kinds += ["broken"] if broken else []
    return MessyTable(texts, labels, kinds, write, encoding, broken=broken)


def _line(row: list[str], delimiter: str, quoting: str) -> str:
    if quoting == "space":  # a space and a quote behind each delimiter
        return (delimiter + " ").join('"' + cell.replace('"', '""') + '"' for cell in row)
    if quoting == "backslash":
        return delimiter.join('"' + cell.replace("\\", "\\\\").replace('"', '\\"') + '"' for cell in row)
    if quoting == "single":
        return delimiter.join("'" + cell.replace("'", "''") + "'" for cell in row)
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL if quoting == "all" else csv.QUOTE_MINIMAL).writerow(
        row
    )
    return out.getvalue().removesuffix("\r\n")


def _records(texts: list[str], spelled: list[str]) -> list[dict[str, Any]]:
    return [
        {"text": t, "label": s or None, "extra": {"n": [r]}}
        for r, (t, s) in enumerate(zip(texts, spelled, strict=True))
    ]


def _jsonl(draw: Random, texts: list[str], labels: list, spelled: list[str], kinds: list[str]) -> MessyTable:
    form = draw.choice(["plain", "missing keys", "escaped"] * 7 + ["repeated key"])
    records = _records(texts, spelled)
    if form == "missing keys":
        records = [{k: v for k, v in row.items() if k != "label" or v is not None} for row in records]
    lines = [json.dumps(row, ensure_ascii=form == "escaped") for row in records]
    if form == "repeated key":
        lines[0] = lines[0][:-1] + ', "label": "something else"}'
    packing = draw.choice(["", ".gz"])

    def write(folder: Path) -> str:
        path = folder / f"table.jsonl{packing}"
        raw = "\n".join(lines).encode()
        path.write_bytes(gzip.compress(raw) if packing else raw)
        return str(path)

    kinds += ["broken" if form == "repeated key" else f"jsonl: {form}"]
    return MessyTable(texts, labels, kinds, write, broken="repeated key" if form == "repeated key" else None)


def _json(draw: Random, texts: list[str], labels: list, spelled: list[str], kinds: list[str]) -> MessyTable:
    form = draw.choice(["records", "columns", "pandas", "split", "lines", "wrapped"])
    records = _records(texts, spelled)
    columns = {name: [row[name] for row in records] for name in records[0]}
    documents = {
        "records": records,
        "columns": columns,
        "pandas": {
            name: dict(zip(map(str, range(len(texts))), column, strict=True)) for name, column in columns.items()
        },
        "split": {
            "columns": list(columns),
            "index": list(range(len(texts))),
            "data": [list(r.values()) for r in records],
        },
        "wrapped": {"version": 1, "data": records},
    }
    indent = draw.choice([None, 2])

    def write(folder: Path) -> str:
        path = folder / "table.json"
        lines = "\n".join(map(json.dumps, records))
        path.write_text(lines if form == "lines" else json.dumps(documents[form], indent=indent), encoding="utf-8")
        return str(path)

    return MessyTable(texts, labels, [*kinds, f"json: {form}"], write)


def _xlsx(draw: Random, texts: list[str], labels: list, spelled: list[str], kinds: list[str]) -> MessyTable:
    several, blank = draw.random() < 0.5, draw.randint(0, 2)
    numbers = "labels numbers" in kinds

    def write(folder: Path) -> str:
        from openpyxl import Workbook

        book = Workbook()
        sheet = book.active
        if several:
            sheet.append(["notes"])
            sheet = book.create_sheet("Daten")
        for _ in range(blank):
            sheet.append([])
        sheet.append(["text", "when", "label"])
        for text, label in zip(texts, spelled, strict=True):
            sheet.append([text, datetime(2026, 1, 2), int(label) if numbers and label else label or None])
        book.save(folder / "table.xlsx")
        return str(folder / "table.xlsx")

    return MessyTable(texts, labels, [*kinds, "several sheets" if several else "one sheet"], write)


def _odd_columns(draw: Random, count: int) -> dict[str, pa.Array]:
    """Returns columns that nobody asks for, of types that few libraries can read."""
    odd: dict[str, pa.Array] = {
        "when": pa.array([date(2026, 1, 2)] * count),
        "nested": pa.array([[{"a": 1}]] * count),
        "amount": pa.array([Decimal("1.50")] * count),
        "raw": pa.array([b"\xff"] * count, pa.binary()),
        "table": pa.array([[("a", 1)]] * count, pa.map_(pa.string(), pa.int64())),
        "code": pa.array(["a"] * count).dictionary_encode(),
        "half": pa.array([1.0] * count, pa.float16()),
        "duration": pa.array([1] * count, pa.duration("ns")),
    }
    names = draw.sample(sorted(odd), draw.randint(0, 4))
    return {name: odd[name] for name in names}


def _arrow_table(draw: Random, texts: list[str], spelled: list[str], kinds: list[str]) -> pa.Table:
    form = draw.choice(["strings", "large strings", "dictionary", "numbers"])
    labels = pa.array([s or None for s in spelled])
    if form == "dictionary":
        labels = labels.dictionary_encode()
    if form == "numbers" and "labels numbers" in kinds:
        labels = pa.array([int(s) if s else None for s in spelled])
    kind = pa.large_string() if form == "large strings" else pa.string()
    return pa.table({**_odd_columns(draw, len(texts)), "text": pa.array(texts, kind), "label": labels})


def _parquet(draw: Random, texts: list[str], labels: list, spelled: list[str], kinds: list[str]) -> MessyTable:
    table = _arrow_table(draw, texts, spelled, kinds)

    def write(folder: Path) -> str:
        half = [name for name in table.column_names if name != "half"]  # Parquet files of float16 are rare
        pq.write_table(table.select(half), folder / "table.parquet")
        return str(folder / "table.parquet")

    return MessyTable(texts, labels, kinds, write)


def _arrow(draw: Random, texts: list[str], labels: list, spelled: list[str], kinds: list[str]) -> MessyTable:
    table, form = _arrow_table(draw, texts, spelled, kinds), draw.choice(["feather", "file", "stream"])

    def write(folder: Path) -> str:
        path = folder / ("table.feather" if form == "feather" else "table.arrow")
        if form == "feather":
            feather.write_feather(table, str(path), compression="uncompressed")
        else:
            make = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
            with make(str(path), table.schema) as writer:
                writer.write_table(table, max_chunksize=7)
        return str(path)

    return MessyTable(texts, labels, [*kinds, f"arrow: {form}"], write)


def _saved(
    draw: Random, texts: list[str], labels: list, classes: list[str], kinds: list[str], several: bool
) -> MessyTable:
    names = draw.choice([classes, ["+1", "-1", "0"][: len(classes)], ["2.0", "1.0", "0.0"][: len(classes)]])
    form = draw.choice([None, None, "numpy", "torch", "pandas", "arrow"])
    numbers = [-1 if label is None else classes.index(label) for label in labels]
    truth = [None if number < 0 else names[number] for number in numbers]

    def write(folder: Path) -> str:
        features = Features({"text": Value("string"), "label": ClassLabel(names=names), "n": Value("int64")})
        made = {"text": texts, "label": numbers, "n": list(range(len(texts)))}
        dataset = Dataset.from_dict(made, features=features).with_format(form, columns=["n"] if form else None)
        if several:
            DatasetDict(train=dataset, test=dataset.select([0])).save_to_disk(folder / "saved")
        else:
            dataset.save_to_disk(folder / "saved")
        return str(folder / "saved")

    return MessyTable(texts, truth, [*kinds, "format set" if form else "no format", f"format: {form}"], write)
