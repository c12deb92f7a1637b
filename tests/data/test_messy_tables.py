"""Generated tables of every kind are read as they are meant, or refused in one sentence, and what was assumed is told.

`make messy` runs 500 of them and counts the kinds; `make test` runs a sample.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings

from hfssl.data.formats.base import TableOptions
from hfssl.data.loading import read_table
from hfssl.errors import HfsslError
from tests.helpers.messy_tables import MessyTable, messy_tables

TABLES = int(os.environ.get("HFSSL_MESSY_TABLES", "60"))
ALL = 500
MAX_REFUSED = 0.05
MAX_SECONDS = 10
MIN_OF_A_KIND = 20  # of 500
COLUMNS = {"text_column": "text", "label_column": "label"}
Read = tuple[list[str], list[str | None], list[str]]


def read(source: str, encoding: str | None = None) -> Read | str:
    """Returns texts and labels of the rows with a text, and the notices; or the message of a refusal."""
    try:
        table, notices = read_table(source, COLUMNS, options=TableOptions(encoding=encoding))
    except HfsslError as error:
        return str(error)
    names, texts, labels = table.features["label"].names, table["text"][:], table["label"][:]
    filled = [row for row, text in enumerate(texts) if text.strip()]  # others are left out of training
    return (
        [texts[row] for row in filled],
        [names[labels[row]] if labels[row] >= 0 else None for row in filled],
        notices,
    )


def right(got: Read | str, case: MessyTable) -> bool:
    if isinstance(got, str):
        return False
    meant = [label and label.casefold() for label in case.labels]  # the most frequent spelling names a class
    return got[0] == case.texts and [label and label.casefold() for label in got[1]] == meant


def test_tables_as_people_have_them():
    kinds: Counter[str] = Counter()
    refused: Counter[str | None] = Counter()
    guesses: Counter[str | None] = Counter()

    @settings(
        max_examples=TABLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(messy_tables())
    def check(case: MessyTable) -> None:
        kinds.update(case.kinds)
        with tempfile.TemporaryDirectory() as folder:
            source, start = case.write(Path(folder)), time.monotonic()
            got = read(source)
            assert time.monotonic() - start < MAX_SECONDS
            if isinstance(got, str):
                assert case.broken, f"{got} {case.kinds}"
                assert len(got.splitlines()) == 1
                refused[case.broken] += 1
            elif not right(got, case):  # two encodings that cannot be told apart: told, and the override reads it
                assert any("found by its letters" in notice for notice in got[2]), (case.kinds, got, case)
                assert right(read(source, case.encoding), case), case.kinds
                guesses[case.encoding] += 1

    check()
    sys.stdout.write(f"{TABLES} tables; refused: {dict(refused)}; encodings guessed wrongly: {dict(guesses)}\n")
    sys.stdout.write(f"{dict(kinds.most_common())}\n")
    if TABLES >= ALL:
        assert refused.total() <= MAX_REFUSED * TABLES
        rare = {kind: count for kind, count in kinds.items() if count < MIN_OF_A_KIND and ":" not in kind}
        assert not rare
