"""Trackers: logs of a run arrive in trackio, TensorBoard and wandb, with no network and no Space."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

import hfssl
import hfssl.pipeline.presets
from hfssl.cli.recipe import parse_recipe
from hfssl.config.arguments import FitArguments
from hfssl.config.parsing import parse
from hfssl.pipeline.run_folder import HOW
from hfssl.training.config import SSLConfig
from tests.helpers import ROOT
from tests.helpers.fit_tiny import TINY
from tests.helpers.rounds_tiny import self_train
from tests.helpers.train_tiny import make_trainer, weights_digest

COMPONENTS = {"train/loss", "train/loss/labeled", "train/loss/pseudo_labeled", "train/pseudo_label_agreement"}
COMPONENTS |= {"train/grad_norm", "train/learning_rate"}
RUNS = [f"self-training, round {number} of 2: student" for number in (1, 2)]
HEALTH = {"train/round/selected", "train/round/mean_bald", "train/round/mean_weight"}


def needs(package: str):
    return pytest.mark.skipif(find_spec(package) is None, reason=f"needs {package}: pip install 'hfssl[{package}]'")


# What the scripts below begin with: no address but those of this machine may be spoken to.
OFFLINE = """
import socket, sys
connect = socket.socket.connect
def watched(self, address):
    assert not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost"), address
    return connect(self, address)
socket.socket.connect = watched
"""


def in_process(script: str, *words: object, **settings: str) -> None:
    """Trackers keep what they are at in their modules, and read where to when they are imported."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    # Upstream's deprecated calls are errors in these tests; what trackers do among themselves is not ours.
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "", "OMP_NUM_THREADS": "1", **settings}
    command = [sys.executable, "-c", OFFLINE + script, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@needs("tensorboard")
def test_components_and_health_arrive_in_tensorboard(tiny_backbone, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rounds = self_train(tiny_backbone, tmp_path / "run", report_to="tensorboard")
    places = sorted({path.parent for path in (tmp_path / "run").rglob("events.out.*")})
    assert [place.name for place in places] == [f"self-training-round-{number}-of-2-student" for number in (1, 2)]
    events = EventAccumulator(str(places[0])).Reload()
    assert set(events.Tags()["scalars"]) >= COMPONENTS | HEALTH
    logged = [entry for entry in rounds.curves_ if entry["round"] == 0 and "loss/labeled" in entry]
    found = [(event.step, event.value) for event in events.Scalars("train/loss/labeled")]
    assert [step for step, _ in found] == [entry["step"] for entry in logged] == [2, 4]
    np.testing.assert_allclose([value for _, value in found], [entry["loss/labeled"] for entry in logged], rtol=1e-6)
    assert [event.value for event in events.Scalars("train/round/selected")] == [rounds.rounds_[0]["selected"]]


@needs("trackio")
def test_components_and_health_arrive_in_trackio(tiny_backbone, tmp_path):
    script = """
from tests.helpers.rounds_tiny import self_train
self_train(sys.argv[1], sys.argv[2], report_to="trackio", project="reviews")
"""
    place = tmp_path / "trackio"
    in_process(script, tiny_backbone, tmp_path / "run", TRACKIO_DIR=str(place))
    (database,) = place.glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT run_name, metrics FROM metrics ORDER BY id").fetchall()
    runs: dict[str, list[dict]] = {}
    for name, metrics in rows:
        runs.setdefault(name, []).append(json.loads(metrics))
    assert list(runs) == RUNS
    assert {name for entry in runs[RUNS[0]] for name in entry} >= COMPONENTS | HEALTH
    steps = [entry["train/global_step"] for entry in runs[RUNS[0]] if "train/loss/labeled" in entry]
    assert steps == [2, 4]


@needs("wandb")
def test_components_and_health_arrive_in_wandb_offline_one_run_a_student(tiny_backbone, tmp_path):
    script = """
import json, wandb
from tests.helpers.rounds_tiny import self_train
seen, log = [], wandb.Run.log
def keep(run, data, *args, **kwargs):
    seen.append([run.name, sorted(data)])
    return log(run, data, *args, **kwargs)
wandb.Run.log = keep
self_train(sys.argv[1], sys.argv[2], report_to="wandb")
wandb.finish()
open(sys.argv[3], "w").write(json.dumps(seen))
"""
    settings = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    in_process(script, tiny_backbone, tmp_path / "run", tmp_path / "seen.json", **settings)
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert list(dict.fromkeys(name for name, _ in seen)) == RUNS
    assert {name for _, names in seen for name in names} >= COMPONENTS | HEALTH


def test_nothing_makes_a_space_by_itself(tmp_path):
    config = SSLConfig(output_dir=str(tmp_path), use_cpu=True)
    assert config.report_to == []
    assert config.trackio_static_space_id is False
    assert config.trackio_space_id is None


@needs("trackio")
def test_a_tracked_push_makes_no_space(hub, tiny_backbone, tmp_path):
    script = """
from tests.helpers.train_tiny import make_trainer
push = {"push_to_hub": True, "hub_model_id": "ada/reviews"}
trainer = make_trainer(sys.argv[1], sys.argv[2], max_steps=2, report_to="trackio", **push)
trainer.train()
trainer.push_to_hub(tags="final")
"""
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    in_process(script, tiny_backbone, tmp_path / "run", TRACKIO_DIR=str(tmp_path / "trackio"), **settings)
    assert [commit.title for commit in hub.repos["ada/reviews"].commits[-2:]] == [
        "Training in progress, step 2",
        "End of training",
    ]
    assert set(hub.repos) == {"ada/reviews"}
    asked = {path for _, path, _ in hub.log}
    assert not [path for path in asked if "space" in path or "bucket" in path]


@needs("tensorboard")
def test_recipes_and_fit_take_a_tracker():
    recipe = parse_recipe(["--config", str(ROOT / "recipes/self_training/trec6.yaml"), "--report_to", "tensorboard"])
    assert recipe.config.report_to == ["tensorboard"]
    argv = ["--train", "x.csv", "--output-dir", "y", "--report-to", "tensorboard"]
    assert parse([FitArguments], argv)[0].report_to == "tensorboard"
    assert "report_to" in HOW  # a resumed run may be watched by another


@needs("tensorboard")
def test_every_stage_of_fit_leaves_its_events(table, tiny_backbone, tmp_path, monkeypatch):  # noqa: F811
    """Also when its checkpoints, next to which they would lie, have been removed."""
    monkeypatch.setitem(hfssl.pipeline.presets.PRESETS, "quick", TINY)
    options = {"backbone": str(tiny_backbone), "preset": "quick", "labels_per_class": 8, "rounds": 1, "quiet": True}
    hfssl.fit(str(table), output_dir=str(tmp_path / "run"), report_to="tensorboard", **options)
    places = {path.parent for path in (tmp_path / "run").rglob("events.out.*")}
    assert {place.parent for place in places} == {tmp_path / "run" / "tensorboard"}
    stages = {
        "labels-only",
        "labels-only-contrastive-stage",
        "pretext",
        "self-training-round-1-of-1-student",
    }
    assert stages <= {place.name for place in places}


@needs("tensorboard")
def test_being_watched_changes_no_bit(tiny_backbone, tmp_path):
    digests = []
    for name in ("none", "tensorboard"):
        trainer = make_trainer(tiny_backbone, tmp_path / name, max_steps=4, save_strategy="no", report_to=name)
        trainer.train()
        digests.append(weights_digest(trainer.model))
    assert digests[0] == digests[1]
