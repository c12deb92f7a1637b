"""`benchmarks/compare.py`: every peer but SetFit, which is an extra; the same rows for all; finished results stay."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import hfssl.pipeline.presets
from hfssl.pipeline.presets import SELF_TRAINING, Preset
from tests.helpers import ROOT
from tests.helpers.texts import write_two_classes

sys.path.insert(0, str(ROOT / "benchmarks"))

import cells
import compare
import compare_tables
import peers

TINY = Preset(supervised={"max_steps": 3}, self_training={**SELF_TRAINING, "max_steps": 3, "rounds": 1})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for dataset in ("trec6", "sst2"):
        write_two_classes(folder / dataset / "train.parquet", 160, seed=1)
        write_two_classes(folder / dataset / "test.parquet", 40, seed=2)
    return folder


@pytest.fixture(scope="module")
def flags(data, tiny_backbone) -> list[str]:
    return ["--quick", "--datasets", "trec6", "--data", str(data), "--backbone", str(tiny_backbone)]


@pytest.fixture(scope="module")
def splits(flags, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("splits") / "trec6-0"
    cells.run_job({**make_job(flags, "trainer_full", folder, folder), "method": cells.SPLITS})
    return folder


def make_job(flags: list[str], method: str, splits: Path, results: Path) -> dict:
    options = compare.parse([*flags, "--methods", method, "--results", str(results)])
    [cell] = compare.choose_cells(options)
    return compare._job(cell, splits, options)


def fake_cell(method: str, dataset: str, seed: int, accuracy: float, seconds: float = 10.0, **more) -> dict:
    return {
        "dataset": dataset,
        "labels_per_class": compare_tables.LABELS_PER_CLASS[dataset],
        "method": method,
        "seed": seed,
        "accuracy": accuracy,
        "macro_f1": accuracy - 0.1,
        "ece": 0.05,
        "seconds": seconds,
        "peak_memory_bytes": 2**30,
        "notes": {},
        "rows": {"digest": "same"},
        **more,
    }


@pytest.mark.slow
@pytest.mark.parametrize("method", [*(name for name in peers.PEERS if name != "setfit"), "hfssl_quick"])
def test_every_method_that_needs_no_extra_fills_its_cell(method, flags, splits, tmp_path, monkeypatch):
    for settings in (peers.TRAINER_FULL, peers.TRAINER_LORA):
        monkeypatch.setitem(settings, "max_steps", 2)
    monkeypatch.setitem(hfssl.pipeline.presets.PRESETS, "quick", TINY)
    cells.run_job(make_job(flags, method, splits, tmp_path))
    kept = json.loads((tmp_path / f"trec6-16-{method}-0.json").read_text())
    assert (kept["dataset"], kept["labels_per_class"], kept["method"], kept["seed"]) == ("trec6", 16, method, 0)
    assert 0 <= kept["accuracy"] <= 1
    assert 0 <= kept["macro_f1"] <= 1
    assert 0 <= kept["ece"] <= 1
    assert kept["seconds"] > 0
    assert kept["peak_memory_bytes"] > 2**26
    assert kept["rows"]["labeled"] + kept["rows"]["validation"] == 32
    assert kept["command"].startswith("python benchmarks/compare.py --datasets trec6 --methods ")
    assert set(kept.get("stages", {})) == ({"labels_only", "self_training"} if method == "hfssl_quick" else set())


@pytest.mark.slow
def test_where_other_work_runs_beside_no_seconds_are_kept(flags, splits, tmp_path, monkeypatch):
    monkeypatch.setitem(hfssl.pipeline.presets.PRESETS, "quick", TINY)
    cells.run_job(make_job([*flags, "--untimed"], "hfssl_quick", splits, tmp_path))
    kept = json.loads((tmp_path / "trec6-16-hfssl_quick-0.json").read_text())
    assert kept["command"].endswith(" --quick --untimed")
    assert kept["seconds"] is kept["cpu_seconds"] is None
    assert [stage["seconds"] for stage in kept["stages"].values()] == [None, None]


def test_peers_train_on_all_labels_and_the_whole_pool_and_see_no_hidden_label(splits, tmp_path):
    from hfssl.data.splits import SemiSupervisedSplits

    parts = SemiSupervisedSplits.load(splits)
    task = cells._task(parts, "backbone", 0, tmp_path)
    assert len(parts["validation"]) > 0
    assert len(parts["proxy"]) > 0
    assert np.bincount(task.labels).tolist() == [16, 16]
    assert len(task.unlabeled) == len(parts["unlabeled"]) + len(parts["proxy"])
    assert not set(task.test) & set(task.texts + task.unlabeled)


@pytest.mark.slow
def test_the_quick_grid_is_kept_and_not_run_again(flags, tmp_path, capsys, monkeypatch):
    results = tmp_path / "cells"
    arguments = [*flags, "--methods", "logistic_regression", "--results", str(results)]
    assert compare.main(arguments) == 0
    assert "[1/1] trec6-16-logistic_regression-0: accuracy " in capsys.readouterr().out
    assert (tmp_path / "cells.png").read_bytes().startswith(b"\x89PNG")
    path = results / "trec6-16-logistic_regression-0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": 0.123}))
    assert compare.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "[1/1]" not in shown
    assert "12.3" in shown
    assert compare.main([*flags, "--results", str(results), "--show", "--seeds", "1"]) == 0
    assert "No cell is kept" in capsys.readouterr().out
    other = json.loads(path.read_text()) | {"seed": 1, "accuracy": 0.456}
    (results / "trec6-16-logistic_regression-1.json").write_text(json.dumps(other))
    drawn = []
    monkeypatch.setattr(compare, "draw", lambda cells, path: drawn.append([cell["seed"] for cell in cells]))
    assert compare.main([*flags, "--results", str(results), "--show", "--seeds", "1"]) == 0
    shown = capsys.readouterr().out
    assert "45.6" in shown
    assert "12.3" not in shown
    assert drawn == [[0, 1]]  # the picture beside the cells is of them all


def test_a_cell_that_fails_is_named_and_leaves_nothing(flags, tmp_path, capsys):
    (tmp_path / "data" / "trec6").mkdir(parents=True)
    arguments = [*flags, "--methods", "label_spreading", "--results", str(tmp_path / "cells")]
    assert compare.main([*arguments, "--data", str(tmp_path / "data")]) == 1
    assert "failed: trec6-16-label_spreading-0" in capsys.readouterr().err
    assert not (tmp_path / "cells").exists()


def test_thorough_is_run_on_two_cells_of_the_grid_and_all_else_on_all():
    cells = compare.choose_cells(compare.parse([]))
    assert [cell.name for cell in cells if cell.method == "hfssl_thorough"] == [
        "trec6-16-hfssl_thorough-0",
        "sst2-16-hfssl_thorough-0",
    ]
    assert len(cells) == 5 * 3 * 8 + 2


def test_what_is_beside_the_grid_is_in_no_table_or_picture_unless_asked_for(tmp_path, capsys):
    for name, dataset, accuracy in (("a", "trec6", 0.80), ("b", "imdb_5k", 0.70)):
        (tmp_path / "cells").mkdir(exist_ok=True)
        (tmp_path / "cells" / f"{name}.json").write_text(json.dumps(fake_cell("setfit", dataset, 0, accuracy)))
    shown = ["--show", "--results", str(tmp_path / "cells")]
    assert compare.main(shown) == 0
    table = capsys.readouterr().out
    assert "trec6@16" in table
    assert "imdb_5k" not in table
    of_the_grid = (tmp_path / "cells.png").read_bytes()
    assert compare.main([*shown, "--datasets", "imdb_5k"]) == 0
    table = capsys.readouterr().out
    assert "imdb_5k@16" in table
    assert "trec6" not in table
    assert (tmp_path / "cells.png").read_bytes() == of_the_grid
    (tmp_path / "cells" / "a.json").unlink()
    assert compare.main([*shown, "--datasets", "imdb_5k"]) == 0
    assert (tmp_path / "cells.png").read_bytes() != of_the_grid


def test_table_shows_means_spreads_and_how_many_cells_there_are():
    kept = [
        fake_cell("setfit", "trec6", 0, 0.80),
        fake_cell("setfit", "trec6", 1, 0.90, seconds=None),
        fake_cell("setfit", "banking77", 0, 0.70, seconds=1200, notes={"capped": "1200 of 9144 steps"}),
        fake_cell("hfssl_standard", "trec6", 0, 0.88, stages={"labels_only": {**fake_cell("", "trec6", 0, 0.8)}}),
    ]
    lines = [line.split("  ") for line in compare_tables.report(kept).splitlines()]
    table = [[word.strip() for word in line if word] for line in lines]
    assert table[2] == [
        "accuracy",
        "trec6@16",
        "banking77@5",
        "mean",
        "macro-F1",
        "ECE",
        "seconds",
        "GiB",
        "cells",
        "timed",
    ]
    assert table[3] == ["setfit", "85.0 ± 7.1", "70.0", "77.5", "67.5", "5.0", "1,210", "1.00", "3/3", "2"]
    assert table[4] == ["hfssl_standard", "88.0", "-", "-", "-", "-", "10", "1.00", "1/3", "1"]
    assert table[5][:3] == ["hfssl_standard: labels_only", "80.0", "-"]
    assert ["setfit on banking77: stopped after 1200 of 9144 steps, to stay below 15 minutes"] in table


def test_rows_that_differ_are_called_out():
    kept = [fake_cell("setfit", "trec6", 0, 0.8), fake_cell("trainer_full", "trec6", 0, 0.8, rows={"digest": "other"})]
    assert "NOT COMPARABLE, trec6 seed 0: setfit saw other rows than trainer_full" in compare_tables.report(kept)


def test_goals_are_checked_on_the_cells_that_both_sides_have():
    accuracy = {"hfssl_standard": [0.90, 0.80], "setfit": [0.84, 0.79], "trainer_full": [0.79, 0.82]}
    accuracy |= {"trainer_lora": [0.99], "hfssl_quick": [0.5]}  # one cell of two: no rival on the grid
    seconds = {"hfssl_standard": 30.0, "setfit": 20.0, "hfssl_quick": 12.0}
    kept = [
        fake_cell(method, "trec6", seed, value, seconds.get(method, 1.0))
        for method, values in accuracy.items()
        for seed, value in enumerate(values)
    ]
    kept += [fake_cell(method, "trec6", 2, value, None) for method, value in (("hfssl_quick", 0.5), ("setfit", 0.8))]
    assert compare_tables.goals(compare_tables.by_method(kept)) == [
        "  reached       standard minus best peer, setfit: +3.5 points (goal 3.0; 2 cells)",
        "  reached       standard minus best labels-only Trainer, trainer_full: +4.5 points (goal 4.0; 2 cells)",
        # 11 points above it with one seed, 2 below it with the other
        "  reached       data sets where standard is over 1 point below that Trainer: none (goal none; 1 data sets)",
        "  not measured  data sets where standard is over 1 point below its own labels only (goal none; 0 data sets)",
        "  MISSED        quick minus that Trainer: -29.0 points (goal above 0; 1 cells)",
        "  not measured  standard, mean regret of the verdict (goal at most 0.5; 0 cells)",
        "  not measured  standard, kept models over 2 points below labels only (goal none; 0 cells)",
        "  not measured  quick, mean regret of the verdict (goal at most 0.5; 0 cells)",
        "  not measured  quick, kept models over 2 points below labels only (goal none; 0 cells)",
        "  reached       standard / SetFit seconds: 1.50 (goal at most 2; 2 cells)",
        "  MISSED        quick / SetFit seconds: 0.60 (goal at most 0.5; 1 cells)",
    ]


def test_a_data_set_where_standard_loses_on_average_is_named():
    accuracy = {"hfssl_standard": [0.90, 0.80], "trainer_full": [0.88, 0.85]}
    kept = [
        fake_cell(name, "sst2", seed, value) for name, values in accuracy.items() for seed, value in enumerate(values)
    ]
    goal = "data sets where standard is over 1 point below that Trainer: sst2 -1.5 (goal none; 1 data sets)"
    assert f"  MISSED        {goal}" in compare_tables.goals(compare_tables.by_method(kept))


def test_a_peer_that_lacks_a_cell_is_still_the_best_one():
    accuracy = {"hfssl_standard": [0.9, 0.9, 0.9], "setfit": [0.89, 0.89], "trainer_full": [0.8, 0.8, 0.8]}
    kept = [
        fake_cell(name, "trec6", seed, value) for name, values in accuracy.items() for seed, value in enumerate(values)
    ]
    goals = compare_tables.goals(compare_tables.by_method(kept))
    assert goals[0] == "  MISSED        standard minus best peer, setfit: +1.0 points (goal 3.0; 2 cells)"
    assert goals[1].startswith("  reached       standard minus best labels-only Trainer, trainer_full: +10.0 points")


def test_regret_of_the_verdict_by_hand():
    kept = []
    for seed, (labels_only, student, selected) in enumerate(
        [(0.80, 0.83, "self_training"), (0.80, 0.77, "self_training"), (0.80, 0.81, "labels_only")]
    ):
        accuracy = {"labels_only": labels_only, "self_training": student, "refit": 0.99}
        stages = {name: fake_cell("", "sst2", seed, value) for name, value in accuracy.items()}
        kept.append(fake_cell("hfssl_standard", "sst2", seed, 0.99, stages=stages, selected_stage=selected))
    goals = compare_tables.goals(compare_tables.by_method(kept))
    # 0, 3 and 1 points behind the better of the two; the second is 3 points below labels only
    assert "  MISSED        standard, mean regret of the verdict: 1.3 points (goal at most 0.5; 3 cells)" in goals
    below = "standard, kept models over 2 points below labels only: sst2/1 -3.0"
    assert f"  MISSED        {below} (goal none; 3 cells)" in goals


def test_setfit_steps_by_hand():
    # 2 classes x 4 rows: 2 * (4 * 5 / 2) = 20 pairs alike, 16 different; 20 of each are 40 pairs, 2.5 batches of 16
    assert peers.setfit_steps([0, 0, 0, 0, 1, 1, 1, 1]) == 3
    assert peers.setfit_steps(np.repeat(np.arange(6), 16)) == 480
    assert peers.setfit_steps(np.repeat(np.arange(77), 5)) == 9144


def test_embeddings_keep_the_order_and_have_length_one(tiny_backbone):
    texts = ["the film was good", "bad", "what a long and awful story of a city and a river", "fun"]
    together = peers.embed(str(tiny_backbone), texts, batch_size=3)
    apart = np.concatenate([peers.embed(str(tiny_backbone), [text]) for text in texts])
    np.testing.assert_allclose(together, apart, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
