"""Runs `hfssl fit` and `hfssl predict` in small: a table and a backbone of 20,000 parameters, both made on the spot.

    python tools/tiny_fit.py [FOLDER]      # FOLDER defaults to build/tiny_fit and is emptied first

For `make package` and `make lower-bounds`: shows within a minute that an environment can do the main job. Needs
nothing but an installed hfssl, no network and none of the project's other files.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

FILLERS = "the a of to and in is was it this very quite much with that film movie story actor plot".split()
CUES = {
    "joy": "great good fun love happy wonderful".split(),
    "anger": "awful bad hate dull angry boring".split(),
    "fear": "dark scary afraid ghost scream night".split(),
}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LABELED, ROWS = 30, 90


def write_backbone(folder: Path) -> None:
    """Writes a two-layer BERT with random weights and a tokenizer of whole words and letters to `folder`."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [
        *SPECIAL,
        *FILLERS,
        *(word for cues in CUES.values() for word in cues),
        *letters,
        *("##" + c for c in letters),
    ]
    vocabulary = list(dict.fromkeys(words))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **sizes)).save_pretrained(folder)


def write_table(path: Path) -> None:
    """Writes texts whose words tell the class; the first 30 rows have labels, the other 60 none."""
    names = list(CUES)
    rows = [("text", "emotion")]
    for i in range(ROWS):
        cues = CUES[names[i % 3]]
        fillers = [FILLERS[(5 * i + 3 * j) % len(FILLERS)] for j in range(6)]
        rows.append(
            (
                " ".join([*fillers[:3], cues[i % 6], *fillers[3:], cues[i // 6 % 6]]),
                names[i % 3] if i < LABELED else "",
            )
        )
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def hfssl(*words: str) -> None:
    """Runs the installed command; ends this process if it fails."""
    command = str(Path(sysconfig.get_path("scripts")) / "hfssl")
    print("hfssl", *words, flush=True)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if status := subprocess.run([command, *words], env=environment).returncode:
        sys.exit(status)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/tiny_fit")
    shutil.rmtree(folder, ignore_errors=True)
    write_backbone(folder / "backbone")
    write_table(folder / "reviews.csv")
    run = folder / "run"
    options = ["--label-column", "emotion", "--backbone", str(folder / "backbone"), "--preset", "quick", "--quiet"]
    hfssl("fit", "--train", str(folder / "reviews.csv"), *options, "--max-length", "32", "--output-dir", str(run))
    hfssl(
        "predict",
        "--model",
        str(run / "model"),
        "--input",
        str(folder / "reviews.csv"),
        "--output",
        str(run / "new.csv"),
    )
    for name in ("report.html", "README.md", "model/model.safetensors"):
        if not (run / name).stat().st_size:
            sys.exit(f"Expected {run / name} to hold something; it is empty.")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    predicted = list(csv.DictReader(open(run / "new.csv", encoding="utf-8")))
    if len(predicted) != ROWS:
        sys.exit(f"Expected {ROWS} predicted rows, got {len(predicted)}.")
    print(f"tiny fit: {results['verdict']['sentence']}")


if __name__ == "__main__":
    main()
