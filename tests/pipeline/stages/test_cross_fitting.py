"""Cross-fitting: labeled rows that speak for the verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import load_from_disk

from hfssl.pipeline.fit import fit


@pytest.mark.usefixtures("tiny_preset")
@pytest.mark.parametrize("pretext", [False, True])
def test_with_cross_fitting_the_labeled_rows_speak_for_the_verdict_too(options, pretext):
    results = fit(**options, pretext=pretext, rounds=1, cross_fit=2).results
    splits = load_from_disk(str(Path(options["output_dir"]) / "splits"))
    rows = len(splits["validation"]) + len(splits["labeled"])
    reasons = " ".join(results["verdict"]["reasons"])
    assert f"of {rows} held-out rows right" in reasons
    assert (
        f"{len(splits['labeled'])} of the held-out rows are the labeled ones, by cross-fitting in 2 folds" in reasons
    )
    assert "on which models of different folds agree: labels only " in reasons
    assert ("pretext-adapted" in reasons) == pretext
    assert "cross_fitting" not in [
        stage["name"] for stage in results["stages"]
    ]  # it makes no model that could be kept
    assert not list((Path(options["output_dir"]) / "stages" / "cross_fitting").rglob("*.safetensors"))
