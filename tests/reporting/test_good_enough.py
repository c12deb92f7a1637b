"""The first question of a reader: is the model good enough, and is it better than the simplest alternatives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import hfssl.pipeline.presets
from hfssl.cli.main import main
from hfssl.pipeline.fit import fit
from hfssl.reporting.good_enough import answer_sentence, closing_lines, coverage_rows, next_step, opening_sentences
from hfssl.reporting.standing import standing_sentence
from tests.helpers.fit_tiny import TINY
from tests.helpers.run_results import make_results
from tests.helpers.texts import CUES, make_text, write_csv

METRICS = {"accuracy": 0.8, "macro_f1": 0.7, "nll": 0.5, "ece": 0.1}


def results_with(*compared: tuple[str, float, float, float], part: str = "test") -> dict:
    """Results of a run whose final model is compared with baselines: name, gain, lower and upper bound."""
    results, _ = make_results(["bad", "good"])
    for stage in results["stages"]:
        stage["metrics"] = {part: METRICS}
    results["data"]["counts"][part] = {"bad": 50, "good": 50}
    results["baselines"] = [{"name": name, "metrics": {part: METRICS}} for name, *_ in compared]
    rows = [
        {"baseline": name, "gain": gain, "interval": [low, high], "is_better": low > 0}
        for name, gain, low, high in compared
    ]
    results["standing"] = {"part": part, "rows": 100, "compared": rows}
    return results


def test_a_model_that_beats_both_baselines_gets_no_sentence():
    results = results_with(("majority", 0.3, 0.2, 0.4), ("probe", 0.1, 0.05, 0.15))
    assert standing_sentence(results) is None
    assert opening_sentences(results) == [results["verdict"]["sentence"]]


def test_a_model_below_a_baseline_is_called_so_first_with_the_numbers():
    results = results_with(("majority", -0.15, -0.2, -0.1), ("probe", 0.1, 0.05, 0.15))
    sentence = opening_sentences(results)[0]
    assert "is not better than always answering the most frequent label (80.0%" in sentence
    assert "−15.0 points" in sentence
    assert "frozen backbone" not in sentence
    assert closing_lines(results)[0] == sentence


def test_a_gain_within_noise_is_not_called_a_gain():
    results = results_with(("majority", 0.3, 0.2, 0.4), ("probe", 0.01, -0.02, 0.04), part="out_of_fold")
    sentence = standing_sentence(results)
    assert sentence.startswith("On the 100 labeled rows the final model is not shown to be better than logistic")


def test_the_answer_stands_beside_the_baselines_with_an_interval():
    answer = answer_sentence(results_with(("majority", 0.3, 0.2, 0.4)))
    assert re.match(r"Accuracy 80\.0% \(95% interval 71\.1 to 86\.7%?\)? ?.*on 100 test rows", answer)
    assert "most frequent label 80.0%" in answer


def test_coverage_rows_leave_out_what_says_nothing():
    results = results_with()
    table = [(0.99, 1, 0.01, 1.0), (0.9, 50, 0.5, 0.99), (0.8, 50, 0.5, 0.99), (0.5, 90, 0.9, 0.9)]
    keys = ("threshold", "rows", "share", "accuracy")
    results["coverage"] = {"part": "test", "table": [dict(zip(keys, row, strict=True)) for row in table]}
    assert [row["threshold"] for row in coverage_rows(results)] == [0.9, 0.5]
    assert any("0.9 or more: 50.0% of the rows, 99.0% of them right" in line for line in closing_lines(results))


def test_the_next_step_depends_on_what_is_known():
    nothing, _ = make_results(["bad", "good"])
    for stage in nothing["stages"]:
        stage["metrics"] = {}
    assert next_step(nothing).startswith("Label more rows, or give a --test table")
    assert "errors.csv" in next_step(results_with(("majority", -0.1, -0.2, -0.05)))
    few = results_with(("majority", 0.3, 0.2, 0.4), part="out_of_fold")
    few["data"]["counts"]["out_of_fold"] = {"bad": 20, "good": 20}
    assert "rests on 40 rows" in next_step(few)


@pytest.fixture
def options(tiny_backbone, tmp_path, monkeypatch) -> dict:
    monkeypatch.setitem(hfssl.pipeline.presets.PRESETS, "quick", TINY)
    return {
        "backbone": str(tiny_backbone),
        "preset": "quick",
        "output_dir": str(tmp_path / "run"),
        "max_length": 32,
        "rounds": 0,
        "pretext": False,
        "quiet": True,
    }


def shuffled(first: int) -> list[dict]:
    labels = np.random.default_rng(first).permutation([name for name in CUES for _ in range(20)])
    return [{"text": make_text(first + i, list(CUES)[i % 3]), "label": str(label)} for i, label in enumerate(labels)]


def one_sided(first: int) -> list[dict]:
    names = ["bad" if i % 33 == 0 else "good" for i in range(99)]
    return [{"text": make_text(first + i, name), "label": name} for i, name in enumerate(names)]


@pytest.mark.parametrize("rows", [shuffled, one_sided], ids=["shuffled labels", "a class of 97 %"])
def test_the_first_sentence_of_everything_says_that_the_model_is_worth_nothing(options, tmp_path, capsys, rows):
    table, test = write_csv(tmp_path / "train.csv", rows(0)), write_csv(tmp_path / "test.csv", rows(500))
    words = ["fit", "--train", str(table), "--test", str(test), "--fail-below-baseline", "--no-pretext", "--quiet"]
    for name in ("backbone", "preset", "output_dir", "max_length", "rounds"):
        words += [f"--{name.replace('_', '-')}", str(options[name])]
    assert main(words) == 3
    folder = Path(options["output_dir"])
    results = json.loads((folder / "results.json").read_text())
    first = standing_sentence(results)
    assert "always answering the most frequent label" in first
    printed = capsys.readouterr().out
    assert printed.index(first[:40]) < printed.index(results["verdict"]["sentence"][:40])
    assert first[:40] in (folder / "report.html").read_text().split("</ul>")[0]
    card = (folder / "README.md").read_text().partition("\n# ")[2]
    assert card.index(first[:40]) < card.index("labels**")
    assert (folder / "errors.csv").is_file()


def test_errors_of_a_run_without_a_test_part_are_those_of_models_without_the_row(options, tmp_path):
    rows = [{"text": make_text(i, name), "label": name} for i in range(6) for name in CUES]
    fit(str(write_csv(tmp_path / "train.csv", rows)), **options, cross_fit=2)
    folder = Path(options["output_dir"])
    results = json.loads((folder / "results.json").read_text())
    assert results["standing"]["part"] == "out_of_fold"
    lines = (folder / "errors.csv").read_text().splitlines()
    assert lines[0] == "id,text,part,label,predicted_label,probability"
    wrong = round((1 - results["stages"][0]["metrics"]["out_of_fold"]["accuracy"]) * 18)
    assert len(lines) == 1 + wrong
    assert all(",out_of_fold," in line for line in lines[1:])
