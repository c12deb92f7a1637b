"""Words and tables of short texts that a tiny model can learn."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from datasets import Dataset

WORDS = (
    "the a of to and in is was it film movie plot good bad great awful fun dull story actor love hate joy fear who "
    "what when where why how many much city river year name person red blue green fast slow up down one two three"
).split()
"""The words of the tiny tokenizer."""

CUES = {"good": "great fun love joy", "bad": "awful dull hate fear", "plot": "story actor city river"}
FILLERS = "the a of to and in is was it film movie who what when".split()


def make_text(i: int, label: str) -> str:
    cue = CUES[label].split()
    words = [FILLERS[(i * 3 + j * 5 + i // 7) % len(FILLERS)] for j in range(4 + i % 4)]
    words.insert(i % 4, cue[i % len(cue)])
    words.insert(2, cue[(i // 3) % len(cue)])
    return " ".join(words)


def write_csv(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_two_classes(path: Path, rows: int, seed: int) -> None:
    """A Parquet table of random words; each text holds three words of its class."""
    cues = {0: ["bad", "awful", "dull"], 1: ["good", "great", "fun"]}
    generator = np.random.default_rng(seed)
    labels = [row % 2 for row in range(rows)]
    words = [[*generator.choice(WORDS, 9), *generator.choice(cues[label], 3)] for label in labels]
    path.parent.mkdir(exist_ok=True)
    Dataset.from_dict({"text": [" ".join(generator.permutation(row)) for row in words], "label": labels}).to_parquet(
        str(path)
    )
