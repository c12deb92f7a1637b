"""`benchmarks/replay.py` and what it reads: logits that are kept, rules by hand, members that are missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from datasets import Dataset
from scipy.special import softmax

from hfssl.data.splits import SemiSupervisedSplits
from hfssl.runtime.files import write_arrays
from tests.helpers import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import kept_logits
import replay
import replay_rules

# Four labeled rows of two classes; the first member is right on three, the second on one, sure of it in the same way.
LABELED = np.array([0, 1, 0, 1])
SURE, UNSURE = np.log([0.8, 0.2]), np.log([0.2, 0.8])
GOOD, POOR = np.array([SURE, UNSURE, SURE, SURE]), np.array([UNSURE, UNSURE, UNSURE, SURE])


def part(labels, column: str) -> Dataset:
    return Dataset.from_dict({column: list(labels), "text": ["text"] * len(labels)})


def make_splits() -> SemiSupervisedSplits:
    parts = {"labeled": part(LABELED, "label"), "validation": part([], "label"), "test": part([0, 1, 1], "label")}
    parts |= {"unlabeled": part([0] * 5 + [1] * 5, "hidden_label"), "proxy": part([-1, -1], "hidden_label")}
    return SemiSupervisedSplits(parts, {"label_names": ["no", "yes"]})


@pytest.fixture
def kept(tmp_path, monkeypatch) -> kept_logits.Kept:
    monkeypatch.setattr(kept_logits, "MAX_POOL_VALUES", 10)  # 5 of the 10 rows of the pool
    folder = tmp_path / "run" / "stages"
    (folder / "folds").mkdir(parents=True)
    (folder / "labels_only").mkdir()
    pool = np.array([SURE] * 5 + [UNSURE] * 5)
    test = np.array([SURE, UNSURE, SURE])
    arrays = {"contrastive-0/labeled": GOOD, "contrastive-0/unlabeled": pool, "contrastive-0/test": test}
    arrays |= {
        "probe-mean-4/labeled": POOR,
        "probe-mean-4/unlabeled": pool,
        "probe-mean-4/test": np.array([UNSURE, UNSURE, SURE]),
    }
    arrays |= {"all-0/unlabeled": pool, "all-0/test": test, "weights/contrastive-0": 0.7, "weights/probe-mean-4": 0.3}
    arrays |= {"label_names/test": test[:2]}  # not the rows of the labels: nothing can be measured by it
    write_arrays(
        folder / "folds" / "logits.npz", {name: np.asarray(table, np.float32) for name, table in arrays.items()}
    )
    write_arrays(folder / "labels_only" / "logits.npz", {"validation": np.zeros((0, 2)), "test": 100 * test + 7})
    kept_logits.keep_logits(tmp_path / "run", make_splits(), tmp_path / "trec6-8-hfssl_standard-0.npz")
    return kept_logits.read_kept(tmp_path / "trec6-8-hfssl_standard-0.npz")


def test_kept_logits_have_the_same_probabilities_and_labels(kept):
    assert set(kept.members) == {"contrastive-0", "probe-mean-4", "all-0"}
    np.testing.assert_allclose(softmax(kept.members["contrastive-0"]["labeled"], axis=1), np.exp(GOOD), atol=1e-3)
    assert kept.labels["labeled"].tolist() == [0, 1, 0, 1]
    # every second row of the pool: 0, 2, 4, 6, 8
    assert kept.labels["unlabeled"].tolist() == [0, 0, 0, 1, 1]
    assert kept.members["all-0"]["unlabeled"].argmax(axis=1).tolist() == [0, 0, 0, 1, 1]
    assert kept.labels["proxy"].tolist() == [-1, -1]
    # far beyond the range of float16 before the largest was moved to 0
    np.testing.assert_allclose(softmax(kept.stages["labels_only"]["test"], axis=1)[:, 0], [1, 0, 1], atol=1e-6)
    assert kept.weights == {"contrastive-0": pytest.approx(0.7), "probe-mean-4": pytest.approx(0.3)}


def test_stacking_weights_by_hand():
    # Without shrinkage the better member dominates a member that is never better.
    worse = np.array([SURE, UNSURE, UNSURE, SURE])
    np.testing.assert_allclose(replay_rules.stacking_weights([GOOD, worse], LABELED, 0.0), [1, 0], atol=1e-3)
    # Two members that are right on different rows: w maximises a log(.2 + .6 w) + b log(.8 - .6 w) with a = 2 rows
    # that only the first has right and b = 1 that only the second has: 2 / (.2 + .6 w) = 1 / (.8 - .6 w), w = 7 / 9.
    first, second = np.array([SURE, UNSURE, UNSURE]), np.array([UNSURE, SURE, SURE])
    labels = np.array([0, 1, 0])
    np.testing.assert_allclose(replay_rules.stacking_weights([first, second], labels, 0.0), [7 / 9, 2 / 9], atol=1e-5)
    strong = replay_rules.stacking_weights([first, second], labels, 1e6)
    np.testing.assert_allclose(strong, [0.5, 0.5], atol=1e-5)
    # With a pseudo-count of c rows .6 a / (.2 + .6 w) - .6 b / (.8 - .6 w) + c / 2 (1 / w - 1 / (1 - w)) is 0.
    [w, _] = replay_rules.stacking_weights([first, second], labels, 4.0)
    gradient = 1.2 / (0.2 + 0.6 * w) - 0.6 / (0.8 - 0.6 * w) + 2 * (1 / w - 1 / (1 - w))
    assert gradient == pytest.approx(0, abs=1e-5)
    assert 0.5 < w < 7 / 9


def test_rules_by_hand(kept):
    good, probe = np.array([0.8, 0.2, 0.8]), np.array([0.2, 0.2, 0.8])
    # the teacher of all labels has no out-of-fold rows, and is a member of no mixture with such
    np.testing.assert_allclose(replay_rules.equal(kept, "test")[:, 0], (good + probe) / 2, atol=1e-3)
    np.testing.assert_allclose(replay_rules.kept_weights(kept, "test")[:, 0], 0.7 * good + 0.3 * probe, atol=1e-3)
    [w, v] = replay_rules.stacking_weights([GOOD, POOR], LABELED, 4.0)
    assert w > v
    np.testing.assert_allclose(
        replay_rules.stacked(kept, "test", shrinkage=4.0)[:, 0], w * good + v * probe, atol=1e-3
    )
    alone = replay_rules.stacked(kept, "test", shrinkage=4.0, without="contrastive")
    np.testing.assert_allclose(alone[:, 0], probe, atol=1e-3)
    np.testing.assert_allclose(replay_rules.of_kind(kept, "test", kind="all")[:, 0], good, atol=1e-3)
    alone = replay_rules.of_kind(kept, "test", kind="probe-mean")
    np.testing.assert_allclose(alone[:, 0], probe, atol=1e-3)
    with pytest.raises(replay_rules.Lacking):
        replay_rules.stacked(kept, "test", shrinkage=4.0, without="nearest")
    with pytest.raises(replay_rules.Lacking):
        replay_rules.of_kind(kept, "labeled", kind="all")
    kept.weights["gone"] = 0.1
    with pytest.raises(replay_rules.Lacking):
        replay_rules.kept_weights(kept, "test")
    moved = replay_rules.aligned_to(kept, "unlabeled", estimate="true", rule=replay_rules.equal)
    # (3 + 1/2) / 6 and (2 + 1/2) / 6, with a pseudo-count of one row
    np.testing.assert_allclose(moved.mean(axis=0), [3.5 / 6, 2.5 / 6], atol=1e-4)


def test_rows_in_no_fold_have_no_out_of_fold_label(kept, tmp_path):
    arrays = dict(np.load(tmp_path / "trec6-8-hfssl_standard-0.npz"))
    arrays["folds/rows"] = np.array([0, 2, 3])
    arrays["folds/probe-mean-4/labeled"] = arrays["folds/probe-mean-4/labeled"][[0, 2, 3]]
    np.savez(tmp_path / "some.npz", **arrays)
    found = kept_logits.read_kept(tmp_path / "some.npz")
    assert found.labels["labeled"].tolist() == [0, 0, 1]
    assert "labeled" in found.members["probe-mean-4"]
    assert "labeled" not in found.members["contrastive-0"]


def test_where_members_lack_the_pool_its_rows_set_aside_stand_for_it(kept):
    pool = kept.members["contrastive-0"]["unlabeled"]
    for name in ("contrastive-0", "probe-mean-4"):
        kept.members[name].pop("unlabeled")
        kept.members[name]["proxy"] = pool[:2]
    part, probs = replay_rules._of_pool(kept, replay_rules.RULES["stacked 4"])
    assert (part, len(probs)) == ("proxy", 2)
    del kept.members["contrastive-0"], kept.members["probe-mean-4"]
    with pytest.raises(replay_rules.Lacking):
        replay_rules._of_pool(kept, replay_rules.RULES["stacked 4"])


def test_a_temperature_is_fitted_on_out_of_fold_rows(kept):
    good = replay_rules.partial(replay_rules.of_kind, kind="contrastive")
    # right on 3 of 4 with .8: the most likely T makes it .75, log(3) = log(4) / T; the wide prior hardly matters
    probs = replay_rules.tempered(kept, "test", rule=good, prior_scale=50.0)
    np.testing.assert_allclose(probs[:, 0], [0.75, 0.25, 0.75], atol=2e-3)
    tight = replay_rules.tempered(kept, "test", rule=good, prior_scale=0.001)
    np.testing.assert_allclose(tight[:, 0], [0.8, 0.2, 0.8], atol=2e-3)


def test_table_of_cells_with_other_members(kept, tmp_path, capsys, monkeypatch):
    (tmp_path / "mpqa-8-hfssl_standard-0.npz").write_bytes((tmp_path / "trec6-8-hfssl_standard-0.npz").read_bytes())
    arrays = dict(np.load(tmp_path / "trec6-8-hfssl_standard-0.npz"))
    few = {name: table for name, table in arrays.items() if not name.startswith(("folds/contrastive", "stages"))}
    np.savez(tmp_path / "sst2-8-hfssl_standard-0.npz", **few)
    np.savez(tmp_path / "sst2-8-hfssl_standard+soup-0.npz", **few)
    cells = replay.read_cells(tmp_path, "hfssl_standard")
    assert list(cells) == [("trec6", "low", 0), ("sst2", "low", 0), ("mpqa", "low", 0)]
    numbers = replay.evaluate(cells, replay_rules.rules_of(cells, members=False))
    assert len(numbers[replay_rules.EQUAL]) == 3
    assert set(numbers["kind contrastive"]) == {("trec6", "low", 0), ("mpqa", "low", 0)}
    assert ("sst2", "low", 0) not in numbers["kept weights"]
    # the test rows are no, yes, yes; the first member predicts no, yes, no
    assert numbers["kind contrastive"]["trec6", "low", 0]["accuracy"] == pytest.approx(2 / 3)
    assert numbers["stage labels_only"]["trec6", "low", 0]["accuracy"] == pytest.approx(2 / 3)

    monkeypatch.setattr(sys, "argv", ["replay.py", "--logits", str(tmp_path)])
    replay.main()
    lines = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines() if "  " in line}
    assert lines["kind contrastive"][-1] == "2"
    assert lines[replay_rules.EQUAL][-1] == "3"
    monkeypatch.setattr(
        sys, "argv", ["replay.py", "--logits", str(tmp_path), "--verdict", "stacked 4", "kind probe-mean"]
    )
    replay.main()
    assert capsys.readouterr().out.startswith("3 cells: expected gain ")
    monkeypatch.setattr(sys, "argv", ["replay.py", "--logits", str(tmp_path), "--against", "none"])
    with pytest.raises(SystemExit, match="Expected one of equal weights, .* as a rule, got 'none'"):
        replay.main()


def test_the_prior_of_a_verdict_is_of_other_data_sets_alone():
    gains = {("a", "low", 0): 0.5, ("a", "high", 0): 0.4, ("b", "low", 0): 0.02, ("c", "low", 0): 0.04}
    found = replay.leave_one_set_out(gains)
    assert found["a", "low", 0] == found["a", "high", 0] == (pytest.approx(0.03), pytest.approx(0.014142, abs=1e-6))
    assert found["b", "low", 0][0] == pytest.approx((0.5 + 0.4 + 0.04) / 3)


def test_regret_and_intervals_of_a_replayed_verdict():
    lost = replay.Judged(expected=0.01, bounds=(-0.03, 0.05), gain=-0.02)
    assert lost.regret == pytest.approx(0.02)
    assert lost.holds(0.95)
    assert not lost.holds(0.8)  # 0.01 - 0.654 * 0.04 = -0.016
    missed = replay.Judged(expected=-0.01, bounds=(-0.05, 0.03), gain=0.02)
    assert missed.regret == pytest.approx(0.02)
    assert replay.Judged(expected=0.01, bounds=(-0.03, 0.05), gain=0.02).regret == 0
