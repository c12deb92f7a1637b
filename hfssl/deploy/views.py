"""Implements `hfssl views`: rows of a table and what views make of them, so that a reader sees what they change."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from hfssl.data.tables import read_rows
from hfssl.data.tokenization import encode_texts
from hfssl.data.views.compose import ComposedView, parse_view, view_columns
from hfssl.errors import ConfigurationError, DataError
from hfssl.models.backbones import load_tokenizer

__all__ = ["shown_views", "view_rows"]

HIDDEN = "[hidden]"


def view_rows(
    input: str | os.PathLike,
    views: Sequence[str],
    *,
    text_column: str = "text",
    rows: int = 10,
    backbone: str | None = None,
    max_length: int = 128,
    seed: int = 0,
) -> list[dict[str, str]]:
    """Returns the first rows of a table, each with its text and what each view makes of it.

    Hidden tokens are shown as `[hidden]`. Noise on embeddings cannot be shown, and leaves the text as it is.

    Args:
        input (`str` or `os.PathLike`): CSV, TSV, JSONL or Parquet table.
        views (`Sequence[str]`): Views, such as `"word_drop:0.1+token_cutoff"` (`hfssl.data.views.compose`).
        text_column (`str`, defaults to `"text"`): Column with the text.
        rows (`int`, defaults to 10): Number of rows.
        backbone (`str`, *optional*): Backbone whose tokenizer cuts the text into tokens; needed for views of tokens.
        max_length (`int`, defaults to 128): Largest number of tokens of a text.
        seed (`int`, defaults to 0): Random seed.

    Returns:
        A list of dicts: `"text"`, and for each view its name and the changed text.

    Raises:
        ConfigurationError: A view cannot be read.
        DataError: The table lacks a column or has no row with a text, or a function of a view fails.

    Example:
        >>> shown = view_rows(table, ["typos:0.3", "word_swap"], rows=2)
        >>> len(shown), sorted(shown[0])
        (2, ['text', 'typos:0.3', 'word_swap'])
    """
    if any(step.name == "infill" for view in views for step in parse_view(view)):
        raise ConfigurationError("views: 'infill' is made before training and cannot be shown; leave it out.")
    tokens = any(step.level == "tokens" for view in views for step in parse_view(view))
    if tokens and backbone is None:
        raise DataError("Expected a backbone for a view of tokens, got none: name one with --backbone (backbone=).")
    tokenizer = load_tokenizer(backbone, max_length=max_length) if backbone is not None and tokens else None
    found: list[dict[str, Any]] = []
    wanted = [text_column, *view_columns(*views)]
    for number, (_, row) in enumerate(read_rows(input)):
        if missing := [name for name in wanted if name not in row]:
            raise DataError(
                f"Expected the column '{missing[0]}' in '{input}', found {', '.join(row)}: name another column."
            )
        text = row[text_column]
        if isinstance(text, str) and text.strip():
            found.append({**row, "text": text, "row": number, "draw": 0})
        if len(found) == rows:
            break
    if not found:
        raise DataError(
            f"Expected texts in the column '{text_column}' of '{input}', found none: name the column that holds them."
        )
    shown = [{"text": row["text"]} for row in found]
    for view in views:
        for row, text in zip(
            shown, shown_views(view, found, tokenizer, seed=seed, max_length=max_length), strict=True
        ):
            row[view] = text
    return shown


def shown_views(
    view: str, rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase | None, *, seed: int, max_length: int
) -> list[str]:
    """Returns what a view makes of rows (with `text`, `row` and `draw`), as texts.

    Args:
        view (`str`): The view.
        rows (`list[dict]`): Rows.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Tokenizer, for views of tokens.
        seed (`int`): Random seed.
        max_length (`int`): Largest number of tokens of a text.
    """
    composed = ComposedView(view, tokenizer, seed=seed, stream="strong", max_length=max_length)
    if tokenizer is None or not composed.token_steps:
        return composed.texts(rows)
    if not composed.text_steps:
        encoded = encode_texts({"text": [row["text"] for row in rows]}, tokenizer, max_length)
        rows = [{**row, **{name: encoded[name][i] for name in encoded}} for i, row in enumerate(rows)]
    batch = composed(rows)
    texts = []
    for ids, mask, row in zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), rows, strict=True):
        width = len(ids)
        real = [i for i in range(width) if ids[i] not in tokenizer.all_special_ids]
        pieces = [HIDDEN if mask[i] == 0 else tokenizer.convert_ids_to_tokens(ids[i]) for i in real]
        texts.append(" ".join(piece for piece in pieces if piece) or row["text"])
    return texts
