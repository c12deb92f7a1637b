"""The digest command: the same work has the same digests, other work has others, and a comparison finds the line."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from tests.invariants.digests import (
    digest_of,
    digest_of_tensors,
    lines_of,
    main,
    make_preset,
    run_fit,
    tiny_place,
    train_method,
)

CASE = "tiny/supervised/lora"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tiny_place(tmp_path_factory.mktemp("place"))


def train(place, seed: int) -> list[str]:
    return lines_of("case", lambda folder: train_method(place, folder, "supervised", {}, "full", seed=seed))


def test_the_same_training_has_the_same_digests_and_another_seed_has_others(place):
    first = train(place, seed=7)
    assert [line.split()[:2] for line in first] == [["case", "weights"], ["case", "logits"]]
    assert train(place, seed=7) == first
    assert not set(train(place, seed=8)) & set(first)


def test_a_run_of_fit_has_digests_of_each_kind(place):
    few = {"max_steps": 2}
    preset = make_preset({"labels_only": few, "self_training": {**few, "rounds": 1, "mc_passes": 2}})
    found = lines_of("case", lambda folder: run_fit(place, folder, preset, "full", validation_fraction=0.2))
    counts = Counter(line.split()[1] for line in found)
    # Three models: labels only, the student (of its round and of its stage), and the final one with its temperature;
    # beside the stages' logits those of the baselines for each part.
    assert counts == {
        "weights": 1,
        "logits": 1,
        "stage_weights": 3,
        "stage_logits": 13,
        "pseudo_labels": 1,
        "splits": 1,
        "metrics": 1,
        "outcome": 1,
    }


def test_one_bit_a_dtype_or_a_name_changes_a_digest(place):
    tensors = {"a": torch.ones(3), "b": torch.zeros(2)}
    nudged = tensors | {"a": torch.nextafter(tensors["a"], torch.tensor(2.0))}
    other = [tensors, nudged, {"c": tensors["a"], "b": tensors["b"]}, {n: t.double() for n, t in tensors.items()}]
    assert len({digest_of_tensors(each) for each in other}) == 4
    kept = tensors | {"classifier.original_module.weight": torch.ones(1)}
    assert digest_of_tensors(kept) == digest_of_tensors(tensors)
    table = tensors["a"].numpy()
    assert len({digest_of(each) for each in (table, table[None], table.astype("f8"), nudged["a"].numpy())}) == 4


def test_compare_says_which_lines_differ_and_exits_with_1(tmp_path, capsys):
    file = tmp_path / "before.txt"
    arguments = ["--tiny", "--only", CASE]
    assert main([*arguments, "--write", str(file)]) == 0
    capsys.readouterr()
    assert main([*arguments, "--compare", str(file)]) == 0
    assert "all 2 lines of 1 cases equal" in capsys.readouterr().out
    lines = file.read_text().splitlines()
    right = next(line for line in lines if " weights " in line)
    file.write_text("\n".join(lines).replace(right, f"{CASE} weights 0123456789abcdef") + "\nother/case weights 0\n")
    assert main([*arguments, "--compare", str(file)]) == 1
    printed = capsys.readouterr().out
    assert f"- {CASE} weights 0123456789abcdef" in printed
    assert f"+ {right}" in printed
    assert "other/case" not in printed  # it was not run
