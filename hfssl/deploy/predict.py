"""Implements `hfssl predict`: predicts labels for tables of any length in constant memory, written atomically."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm.auto import tqdm

from hfssl.data.tables import parquet_schema, read_rows
from hfssl.data.writing import table_writer
from hfssl.deploy.onnx_runtime import OnnxClassifier
from hfssl.deploy.text_classifier import open_classifier
from hfssl.errors import ConfigurationError, DataError, near_matches
from hfssl.inference.text_classifier import TextClassifier
from hfssl.runtime.files import atomic_file

__all__ = ["PredictionSummary", "predict"]

CHUNK_ROWS = 2048  # rows in memory at once; enough for sorting by length to save most of the padding
MAX_CHARACTERS = 20_000  # as in load_table: bounds the memory of the tokenizer
ARROW_TYPES = {str: pa.string(), float: pa.float64()}

Classifier = TextClassifier | OnnxClassifier


@dataclass(frozen=True)
class PredictionSummary:
    """Describes the result of `predict`.

    Args:
        rows (`int`): Number of rows written.
        empty (`int`): Number of rows without any text, whose prediction is empty.
        columns (`list[str]`): Names of the new columns, as written.
        replaced (`int`): Number of cells of the output in which characters were replaced, as the file cannot hold
            them: half surrogate pairs (a cut emoji), and NUL in CSV and TSV.
        neutralized (`int`): Number of cells that got an apostrophe, so that no spreadsheet runs them as a formula.
    """

    rows: int
    empty: int
    columns: list[str]
    replaced: int = 0
    neutralized: int = 0


def predict(
    model: str | os.PathLike,
    input: str | os.PathLike,
    output: str | os.PathLike,
    *,
    text_column: str = "text",
    text_pair_column: str | None = None,
    max_length: int | None = None,
    max_tokens: int = 8192,
    top_k: int = 1,
    all_probabilities: bool = False,
    for_spreadsheet: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> PredictionSummary:
    """Writes the rows of `input`, in their order, with a label, its probability and the entropy to `output`.

    The new columns are `predicted_label`, `probability` (of that label, in [0, 1]) and `entropy` (of all labels, in
    nats); with `top_k`, `label_rank_2`, `probability_rank_2`, and so on; with `all_probabilities`, one column
    `probability_NAME` for each label. A name that the input already contains gets the suffix `_2` (`_3`, ...). The
    whole input is checked before the first prediction.

    Args:
        model (`str | os.PathLike`): Folder of a finished run, a full model, an adapter or an ONNX export, or a Hub id.
        input (`str | os.PathLike`): Table file of any kind that `load_table` reads.
        output (`str | os.PathLike`): CSV, TSV, JSON-lines or Parquet file to write.
        text_column (`str`, defaults to `"text"`): Column with the text, read as in `fit`: numbers are texts; empty,
            null and NaN are none; half a surrogate pair is replaced.
        text_pair_column (`str`, *optional*): Column with the second text of a pair.
        max_length (`int`, *optional*): Number of tokens at which texts are cut. Default: the limit of the model's
            tokenizer.
        max_tokens (`int`, defaults to `8192`): Largest number of tokens in one forward pass, padding included.
        top_k (`int`, defaults to `1`): Number of most probable labels to write, at most the number of labels.
        all_probabilities (`bool`, defaults to `False`): Whether to write the probability of every label.
        for_spreadsheet (`bool`, defaults to `False`): Whether CSV and TSV are for a spreadsheet: with a byte order
            mark, and an apostrophe before texts that would be run as formulas.
        overwrite (`bool`, defaults to `False`): Whether to replace an existing `output`.
        quiet (`bool`, defaults to `False`): Whether to hide the progress bar.

    Raises:
        DataError: if the input is malformed or lacks a column, or if `output` exists.
        ConfigurationError: if the suffix of `output` is unknown.
        ModelError: if the model cannot be loaded.
    """
    source, target = Path(input), Path(output)
    if target.exists() and not overwrite:
        raise DataError(f"The output file '{target}' exists; choose another name, or replace it with --overwrite.")
    wanted = [text_column] if text_pair_column is None else [text_column, text_pair_column]
    columns, count = _scan(source, wanted)
    classifier = open_classifier(model, max_length)
    new = _prediction_columns(classifier, top_k, all_probabilities)
    names = _free_names(columns, [name for name, _ in new])
    kinds = {name: ARROW_TYPES[kind] for name, (_, kind) in zip(names, new, strict=True)}
    with (
        atomic_file(target) as temporary,
        table_writer(temporary, target.suffix, source, columns, kinds, spreadsheet=for_spreadsheet) as writer,
    ):
        rows, empty, nothing = read_rows(source), 0, (None,) * len(names)
        with tqdm(total=count, desc="Predicting", unit=" rows", disable=True if quiet else None) as bar:
            while chunk := [(place, dict(row)) for place, row in islice(rows, CHUNK_ROWS)]:
                texts = []
                for place, row in chunk:
                    texts.append(tuple(_as_text(row.get(column), column, source, place) for column in wanted))
                    # NaN is no text, and no text is null.
                    row |= {column: None for column in wanted if column in row and _missing(row[column])}
                filled = [index for index, parts in enumerate(texts) if any(part.strip() for part in parts)]
                labeled = _predictions(classifier, [texts[i] for i in filled], max_tokens, top_k, all_probabilities)
                predictions = dict(zip(filled, labeled, strict=True))
                writer.write(
                    [
                        row | dict(zip(names, predictions.get(index, nothing), strict=True))
                        for index, (_, row) in enumerate(chunk)
                    ]
                )
                empty += len(chunk) - len(filled)
                bar.update(len(chunk))
    return PredictionSummary(count, empty, names, writer.replaced, writer.neutralized)


def _prediction_columns(classifier: Classifier, top_k: int, all_probabilities: bool) -> list[tuple[str, type]]:
    """Returns names and types of the new columns, in order."""
    labels = classifier.label_names
    if not 1 <= top_k <= len(labels):
        raise ConfigurationError(
            f"Expected a top_k from 1 to {len(labels)}, the number of labels of the model, got {top_k}."
        )
    new = list(classifier.task.prediction_columns.items())
    for rank in range(2, top_k + 1):
        new += [(f"label_rank_{rank}", str), (f"probability_rank_{rank}", float)]
    return new + [(f"probability_{name}", float) for name in labels if all_probabilities]


def _predictions(
    classifier: Classifier, texts: list[tuple[str, ...]], max_tokens: int, top_k: int, all_probabilities: bool
) -> list[tuple[Any, ...]]:
    """Returns the values of the new columns for each text or pair."""
    if not texts:
        return []
    logits = classifier.predict_logits(classifier.tokenized(texts), max_tokens)
    probs = classifier.task.probs(torch.from_numpy(logits)).numpy()  # [N, K]
    rows = classifier.task.describe(probs, classifier.label_names)
    order = np.argsort(-probs, axis=1, kind="stable")[:, 1:top_k]
    for index, ranked in enumerate(order if top_k > 1 else []):
        further = [(classifier.label_names[label], round(float(probs[index, label]), 6)) for label in ranked]
        rows[index] = (*rows[index], *(cell for pair in further for cell in pair))
    if all_probabilities:
        rows = [(*row, *(round(float(p), 6) for p in of_row)) for row, of_row in zip(rows, probs, strict=True)]
    return rows


def _scan(path: Path, wanted: Sequence[str]) -> tuple[list[str], int]:
    """Reads the whole table once, to report broken rows early; returns its columns and its number of rows."""
    columns: dict[str, None] = {}
    if path.suffix.lower() == ".parquet" and path.exists():
        columns, count = dict.fromkeys(parquet_schema(path).names), pq.read_metadata(path).num_rows
    else:
        count = 0
        for _, row in read_rows(path):
            columns |= dict.fromkeys(row)
            count += 1
    if count == 0:
        raise DataError(f"Expected rows in '{path}', found none; check how it was written.")
    for name in wanted:
        if name not in columns:
            hint = near_matches(name, list(columns))
            raise DataError(f"Expected a column '{name}' in '{path}', found {', '.join(columns)}.{hint}")
    return list(columns), count


def _free_names(columns: Sequence[str], new: Iterable[str]) -> list[str]:
    """Returns the names of the new columns, with a number where the table already has such a column."""
    names: list[str] = []
    for name in new:
        free, number = name, 2
        while free in columns or free in names:
            free, number = f"{name}_{number}", number + 1
        names.append(free)
    return names


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _as_text(value: Any, column: str, source: Path, place: int) -> str:
    """Returns the text of a cell by the rules of `load_table`."""
    if _missing(value):
        return ""
    if not isinstance(value, str | int | float):
        raise DataError(
            f"Expected one text a row in the column '{column}' of '{source}', got a {type(value).__name__} at line or "
            f"row {place}: join it into one string."
        )
    return str(value).encode("utf-8", "replace").decode("utf-8")[:MAX_CHARACTERS]
