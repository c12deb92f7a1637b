"""`benchmarks/compare.py --grid wide`: which cells, in which order, until when; a tiny cell from end to end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hfssl.pipeline.presets
from hfssl.data.splits import SemiSupervisedSplits
from hfssl.pipeline.presets import SELF_TRAINING, Preset
from tests.helpers import ROOT
from tests.helpers.texts import write_two_classes

sys.path.insert(0, str(ROOT / "benchmarks"))

import cells
import code_versions
import compare
import development
import grid
import kept_logits
import wide
import wide_tables

TINY = Preset(supervised={"max_steps": 3}, self_training={**SELF_TRAINING, "max_steps": 3, "rounds": 1})


def write_meta(folder: Path, classes: int, rows: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"class {number}" for number in range(classes)]
    meta = {"task": "text-classification", "label_names": names, "rows": {"train": rows}}
    (folder / "META.json").write_text(json.dumps(meta))
    (folder / "labels.json").write_text(json.dumps(names))
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    """All sets of the grid, with facts but without rows."""
    for dataset in grid.WIDE:
        write_meta(tmp_path / "data" / dataset, 2, 5000)
    return tmp_path / "data"


@pytest.fixture
def flags(data, tmp_path) -> list[str]:
    places = ["--data", str(data), "--results", str(tmp_path / "cells"), "--logits", str(tmp_path / "logits")]
    return [*places, "--backbone", "none"]


# --- which rows and cells --------------------------------------------------------------------------------------------


def test_budgets_are_smaller_where_classes_are_many_or_rows_few(tmp_path):
    assert grid.wide_budgets(write_meta(tmp_path / "usual", 20, 6400)) == {"low": 8, "high": 32}
    assert grid.wide_budgets(write_meta(tmp_path / "many", 21, 100_000)) == {"low": 4, "high": 16}
    # 32 x 20 labels are more than a tenth of 6,399 rows
    assert grid.wide_budgets(write_meta(tmp_path / "few", 20, 6399)) == {"low": 4, "high": 16}
    assert grid.wide_budgets(write_meta(tmp_path / "clinc150", 21, 6400)) == {"low": 8, "high": 32}


@pytest.mark.skipif(not grid.SHARED.is_dir(), reason="needs ../shared/data")
def test_the_grid_has_thirteen_sets_two_of_them_with_many_classes():
    budgets = {name: grid.wide_budgets(grid.SHARED / name)["low"] for name in grid.WIDE}
    assert len(budgets) == 13
    assert {name for name, low in budgets.items() if low == 4} == {"banking77", "clinc150"}


def test_a_label_is_left_out_and_the_numbers_close_the_gap(tmp_path):
    source = write_meta(tmp_path / "set", 3, 1600)
    table = pd.DataFrame({"text": [f"text {row}" for row in range(1800)], "label": [row % 3 for row in range(1800)]})
    for part in ("train", "test"):
        table.to_parquet(source / f"{part}.parquet", index=False)
    assert development.cut(source, tmp_path / "whole") == {"test": 450, "train": 1350}
    # 1,200 rows are left: too few
    assert development.cut(source, tmp_path / "none", without="class 1") is None
    development.copy(source, tmp_path / "copy", without="class 1")
    rows = pd.read_parquet(tmp_path / "copy" / "test.parquet")
    assert rows["text"].tolist()[:4] == ["text 0", "text 2", "text 3", "text 5"]
    assert rows["label"].tolist()[:4] == [0, 1, 0, 1]
    assert json.loads((tmp_path / "copy" / "labels.json").read_text()) == ["class 0", "class 2"]


def test_every_set_of_a_budget_and_seed_comes_before_the_next(flags):
    found = wide.choose(
        wide.parse([*flags, "--rows", "test", "--methods", "setfit", "hfssl_quick", "--variant", "soup"])
    )
    assert [cell.label for cell in found[:3]] == ["setfit", "hfssl_quick", "hfssl_quick+soup"]
    assert [cell.dataset for cell in found[: 3 * 13 : 3]] == list(grid.WIDE)
    blocks = [(cell.seed, cell.budget) for cell in found[:: 3 * 13]]
    assert blocks == [(0, "low"), (0, "high"), (1, "low"), (1, "high")]
    assert len({cell.name for cell in found}) == len(found) == 3 * 13 * 4


def test_harmful_pools_go_in_turn_over_the_sets(flags):
    options = [*flags, "--methods", "hfssl_quick", "--pool", "harmful", "--budgets", "low"]
    found = wide.choose(wide.parse(options))
    assert [cell.pool for cell in found[:4]] == ["foreign", "one_class", "shuffled", "foreign"]
    assert len(found) == 13
    assert found[0].name == "trec6-8-hfssl_quick-0-foreign"


# --- running ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def begun(monkeypatch) -> list[str]:
    """Names of the cells that were begun; each is kept at once, as if it had taken half an hour."""
    names: list[str] = []

    def keep(job, checkout=None):
        if job["method"] != cells.SPLITS:
            names.append(Path(job["output"]).stem)
            Path(job["output"]).parent.mkdir(exist_ok=True)
            outcome = {"accuracy": 0.5, "macro_f1": 0.5, "wall_seconds": 1800.0, "rows": {"digest": "same"}}
            outcome |= {"notes": {}, "code": {}, "settings": {}, "seconds": 1800.0, "ece": 0.0}
            place = {name: job[name] for name in ("dataset", "labels_per_class", "method", "seed")}
            Path(job["output"]).write_text(json.dumps({**place, **job["labels"], **outcome}))
        return True

    monkeypatch.setattr(wide, "run_process", keep)
    monkeypatch.setattr(wide, "backbone", lambda: "none")
    return names


def test_no_cell_is_begun_that_would_end_too_late_and_the_next_run_goes_on(flags, begun, capsys):
    asked = [*flags, "--rows", "test", "--methods", "logistic_regression", "--seeds", "0", "--budgets", "low"]
    asked += ["--datasets", *[name for name in grid.WIDE if name != "clinc150"]]  # which needs rows, to leave some out
    # nothing is known of the first; each then needs half an hour, which is more than is left
    assert compare.main(["--grid", "wide", *asked, "--max-hours", "0.4"]) == 0
    assert begun == ["trec6-8-logistic_regression-0"]
    assert "11 cells are left, about 5.5 h left: run it again to go on." in capsys.readouterr().out
    assert compare.main(["--grid", "wide", *asked]) == 0
    assert len(begun) == len(set(begun)) == 12
    shown = capsys.readouterr().out
    assert "[1/11] sst2-8-logistic_regression-0: accuracy 50.0, 1800 s; about 5.0 h left" in shown
    assert "logistic_regression  50.0 ± 0.0" in shown
    assert compare.main(["--grid", "wide", *asked, "--show", "--seeds", "5"]) == 0
    assert "No cell is kept" in capsys.readouterr().out


def test_a_variant_keeps_its_settings_under_its_name(flags, begun):
    asked = [*flags, "--rows", "test", "--datasets", "trec6", "--budgets", "low", "--seeds", "0"]
    asked += ["--methods", "hfssl_quick", "--variant"]
    assert wide.main([*asked, 'short={"self_training": {"max_steps": 9}}']) == 0
    assert begun == ["trec6-8-hfssl_quick-0", "trec6-8-hfssl_quick+short-0"]
    assert wide.main([*asked, 'short={"self_training": {"max_steps": 9}}']) == 0
    with pytest.raises(SystemExit, match=r"settings .*9.* of the variant 'short'.*got .*8.*another name"):
        wide.main([*asked, 'short={"self_training": {"max_steps": 8}}'])
    with pytest.raises(SystemExit, match="Expected fields of a preset"):
        wide.main([*asked, 'wrong={"max_step": 8}'])
    assert len(begun) == 2


def test_cells_of_another_version_are_told_and_run_again_if_asked(flags, begun, tmp_path, capsys):
    asked = [*flags, "--rows", "test", "--datasets", "trec6", "--budgets", "low", "--methods", "self_training"]
    asked += ["--seeds", "0"]
    assert wide.main(asked) == 0
    path = tmp_path / "cells" / "trec6-8-self_training-0.json"
    current = json.loads(path.read_text()) | {"settings": wide_tables.PEERS["self_training"].settings}
    path.write_text(json.dumps(current | {"code": {"benchmarks/peers.py": "other"}}))
    capsys.readouterr()
    assert wide.main([*asked, "--show"]) == 0
    told = "OLDER VERSION, self_training: 1 of 1 cells; benchmarks/peers.py changed since"
    assert told in capsys.readouterr().out
    assert wide.main(asked) == 0
    assert len(begun) == 1
    assert wide.main([*asked, "--stale"]) == 0
    assert len(begun) == 2
    path.write_text(json.dumps(current | {"code": cells.used_code("self_training")}))
    assert wide.main([*asked, "--stale"]) == 0
    assert len(begun) == 2


def test_comments_and_docstrings_make_no_other_version(tmp_path):
    def digest(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return code_versions.code_digest(tmp_path / name)

    first = digest("a.py", '"""Says a."""\n\n\ndef f(x):\n    """Adds."""\n    return x + 1  # one\n')
    assert digest("b.py", '"""Says b."""\n\n\ndef f(x):\n    return x + 1\n') == first
    assert digest("c.py", "def f(x):\n    return x + 2\n") != first


# --- a tiny cell, from end to end ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_tiny_cell_keeps_numbers_and_logits(tmp_path, tiny_backbone, monkeypatch, capsys):
    source = write_meta(tmp_path / "data" / "sst2", 2, 5000)
    write_two_classes(source / "train.parquet", 1500, seed=1)
    monkeypatch.setattr(development, "MAX_TRAINING_ROWS", 300)
    monkeypatch.setattr(development, "TEST_ROWS", 60)
    monkeypatch.setitem(hfssl.pipeline.presets.PRESETS, "quick", TINY)
    splits_made = set()

    def run_here(job, checkout=None):
        cells.run_job(job)
        splits_made.update(Path(job["splits"]).parent.iterdir())
        return True

    monkeypatch.setattr(wide, "run_process", run_here)
    asked = ["--data", str(tmp_path / "data"), "--results", str(tmp_path / "cells"), "--backbone", str(tiny_backbone)]
    asked += ["--logits", str(tmp_path / "logits"), "--datasets", "sst2", "--budgets", "low"]
    assert wide.main([*asked, "--methods", "hfssl_quick", "logistic_regression"]) == 0
    assert "Kept logits: " in capsys.readouterr().out

    ours, peer = (
        json.loads((tmp_path / "cells" / f"sst2-8-{method}-0.json").read_text())
        for method in ("hfssl_quick", "logistic_regression")
    )
    assert (ours["measured_on"], ours["budget"], ours["pool"], ours["variant"]) == ("development", "low", "own", "")
    assert ours["rows"]["labeled"] + ours["rows"]["validation"] == peer["rows"]["labeled"] + peer["rows"]["validation"]
    assert ours["rows"]["whole_digest"] == peer["rows"]["whole_digest"]
    assert ours["rows"]["test"] == 60
    assert 0 <= ours["debiased_ece"] <= 1
    assert 0 <= peer["debiased_ece"] <= 1
    assert 0 <= ours["stages"]["labels_only"]["debiased_ece"] <= 1
    assert 0 < ours["seconds"] <= ours["wall_seconds"]
    made = sorted(path.name for path in splits_made)
    assert made[0] == "sst2-8-0"  # for the peer; that of `fit` has a digest of what it was made with
    assert len(made) == 2
    assert made[1].startswith("sst2-8-0-")
    assert ours["settings"]["values"]["self_training"]["max_steps"] == 3
    assert {"hfssl/training/trainer.py", "hfssl/pipeline/fit.py"} <= ours["code"].keys()
    assert peer["code"].keys() == {"benchmarks/peers.py"}
    assert wide_tables.version_changes(ours) == []
    final = ours["stages"][ours["final_stage"]]["accuracy"]
    assert ours["shipped"]["gain"] == pytest.approx(final - ours["stages"]["labels_only"]["accuracy"])
    assert 0 < ours["shipped"]["p_worse"] <= 1

    kept = kept_logits.read_kept(tmp_path / "logits" / "sst2-8-hfssl_quick-0.npz")
    right = kept.stages["labels_only"]["test"].argmax(axis=1) == kept.labels["test"]
    assert right.mean() == pytest.approx(ours["stages"]["labels_only"]["accuracy"])
    assert set(kept.labels["unlabeled"]) == {0, 1}
    monkeypatch.setitem(hfssl.pipeline.presets.PRESETS, "quick", Preset(**{**vars(TINY), "refit": True}))
    assert wide_tables.version_changes(ours) == ["refit"]


@pytest.mark.parametrize("kind", ["foreign", "one_class", "shuffled"])
def test_a_harmful_pool_takes_the_place_of_the_own_one(kind, tmp_path, data, flags):
    for dataset in ("trec6", "emotion"):
        for part, seed in (("train", 1), ("test", 2)):
            write_two_classes(data / dataset / f"{part}.parquet", 200, seed=seed + 10 * (dataset == "emotion"))
    options = wide.parse([*flags, "--rows", "test", "--datasets", "trec6", "--budgets", "low", "--seeds", "3"])
    options.methods = ["self_training"]
    parts = {}
    for pool in ("own", kind):
        options.pool = pool
        [cell] = wide.choose(options)
        job = wide._job(cell, tmp_path / "scratch", options)
        cells.run_job({**job, "method": cells.SPLITS})
        parts[pool] = SemiSupervisedSplits.load(job["splits"])
    own, planted = parts["own"], parts[kind]
    for part in ("labeled", "validation", "test"):
        assert planted[part]["text"][:] == own[part]["text"][:]
    texts = {name: [*split["unlabeled"]["text"], *split["proxy"]["text"]] for name, split in parts.items()}
    assert planted.manifest["roles"]["unlabeled"]["ids"] == planted["unlabeled"]["id"][:]
    assert set(planted["unlabeled"]["label"]) == {-1}
    if kind == "foreign":
        there = set(pd.read_parquet(data / "emotion" / "train.parquet")["text"])
        assert set(texts[kind]) <= there
        assert len(texts[kind]) == len(texts["own"])
    elif kind == "one_class":
        hidden = [*planted["unlabeled"]["hidden_label"], *planted["proxy"]["hidden_label"]]
        assert len(set(hidden)) == 1
        assert set(texts[kind]) < set(texts["own"])
    else:
        assert sorted(" ".join(texts[kind]).split()) == sorted(" ".join(texts["own"]).split())
        lengths = [[len(text.split()) for text in texts[name]] for name in ("own", kind)]
        assert lengths[0] == lengths[1]
        assert np.mean([text in texts["own"] for text in texts[kind]]) < 0.1
