"""A trainer's own pushes, during and after training, with the real client against the loopback server."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard

import hfssl
from hfssl.cli.recipe import parse_recipe, train_recipe
from hfssl.config.methods import METHODS
from hfssl.errors import ModelError
from tests.helpers import ROOT
from tests.helpers.encoders import fixed_logits
from tests.helpers.hub_server import REPO, Fault, HubServer, files
from tests.helpers.train_tiny import LABEL_NAMES, make_trainer, weights_digest

# Of huggingface_hub's own upload over plain HTTP, which the real Hub has replaced by Xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

IDS = torch.arange(5, 13).view(2, 4)
LOAD = """
import sys, torch, hfssl
model = hfssl.from_pretrained(sys.argv[1]).eval()
print(list(model.config.id2label.values()))
with torch.no_grad():
    torch.save(model(input_ids=torch.arange(5, 13).view(2, 4)).logits, sys.argv[2])
"""


def pushing_trainer(backbone, folder, **settings):
    return make_trainer(backbone, folder, push_to_hub=True, hub_model_id=REPO, **settings)


def loaded_elsewhere(server: HubServer, tmp_path) -> tuple[torch.Tensor, str]:
    """Logits and label names that a fresh process gets by the id."""
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", LOAD, REPO, str(tmp_path / "logits.pt")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(tmp_path / "logits.pt"), done.stdout


def titles(server: HubServer) -> list[str]:
    return [commit.title for commit in server.repos[REPO].commits[1:]]


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_pushes_on_the_way_and_at_the_end_load_by_id_in_a_fresh_process_to_the_bit(hub, tiny_backbone, tmp_path, lora):
    trainer = pushing_trainer(tiny_backbone, tmp_path / "run", lora=lora, max_steps=6, hub_always_push=True)
    trainer.train()
    assert titles(hub) == ["Training in progress, step 3", "Training in progress, step 6"]
    on_the_way = hub.repos[REPO].commits[1]
    assert "**Training in progress**: this is step 3 of 6." in on_the_way.files["README.md"].content.decode()
    trainer.push_to_hub()
    assert len(titles(hub)) == 2  # the Hub holds this very model: an empty commit would say nothing
    trainer.push_to_hub(tags="final")
    assert titles(hub)[2:] == ["End of training"]
    pushed, names = loaded_elsewhere(hub, tmp_path)
    assert torch.equal(pushed, fixed_logits(trainer.model))
    assert str(LABEL_NAMES) in names
    third = hfssl.from_pretrained(REPO, revision=on_the_way.oid)
    assert torch.equal(fixed_logits(third), fixed_logits(hfssl.from_pretrained(tmp_path / "run" / "checkpoint-3")))
    assert not torch.equal(fixed_logits(third), pushed)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_what_is_pushed_is_the_model_its_label_map_its_tokenizer_and_its_card(hub, tiny_backbone, tmp_path, lora):
    trainer = pushing_trainer(tiny_backbone, tmp_path / "run", lora=lora, max_steps=3, hub_strategy="end")
    trainer.train()
    assert titles(hub) == []
    (tmp_path / "run" / "customers.json").write_text("[]")  # of the user's own, in the same folder
    (tmp_path / "run" / "notes.txt").write_text("private")
    trainer.push_to_hub(license="mit", tags="mine")
    model = {"adapter_config.json", "adapter_model.safetensors", "hfssl_labels.json"}
    model = model if lora else {"config.json", "model.safetensors"}
    shared = {".gitattributes", "README.md", "tokenizer.json", "tokenizer_config.json"}
    assert files(hub).keys() - {"vocab.txt", "special_tokens_map.json"} == model | shared
    card = ModelCard(files(hub)["README.md"].content.decode())
    card.validate()
    assert (card.data.license, card.data.pipeline_tag) == ("mit", "text-classification")
    assert card.data.library_name == ("peft" if lora else "transformers")
    assert {"mine", "hfssl"} <= set(card.data.tags)
    assert ("LoRA adapter" in card.text) == lora
    assert "11 labeled rows" in card.text
    assert '"max_steps": 3' in card.text
    assert "devlin2019bert" in card.text
    assert "this is step" not in card.text
    exec(compile(card.text.split("```python\n")[1].split("```")[0], "README.md", "exec"), {})


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.product != "classifier"])
def test_a_backbone_is_not_called_a_classifier(hub, tiny_backbone, tmp_path, method):
    trainer = pushing_trainer(tiny_backbone, tmp_path / "run", method=method, max_steps=2, hub_strategy="end")
    trainer.train()
    trainer.push_to_hub()
    card = ModelCard(files(hub)["README.md"].content.decode())
    masked = METHODS[method].product == "masked_lm"
    assert card.data.pipeline_tag == ("fill-mask" if masked else "feature-extraction")
    assert "Classes:" not in card.text
    assert ("head, if it has one, is not trained" in card.text) != masked
    if masked:
        exec(compile(card.text.split("```python\n")[1].split("```")[0], "README.md", "exec"), {})


@pytest.mark.parametrize(
    ("strategy", "name"), [("checkpoint", "last-checkpoint"), ("all_checkpoints", "checkpoint-3")]
)
def test_a_checkpoint_is_pushed_whole_in_the_same_commit_and_resumes(hub, tiny_backbone, tmp_path, strategy, name):
    settings = {"max_steps": 5, "hub_always_push": True, "hub_strategy": strategy}
    trainer = pushing_trainer(tiny_backbone, tmp_path / "run", **settings)
    trainer.train()
    assert titles(hub) == ["Training in progress, step 3", "Training in progress, step 5"]
    pushed = hub.repos[REPO].commits[1].files
    place = tmp_path / "elsewhere" / "checkpoint-3"
    for path, file in pushed.items():
        if path.startswith(f"{name}/"):
            here = place / path.removeprefix(f"{name}/")
            here.parent.mkdir(parents=True, exist_ok=True)
            here.write_bytes(file.content)
    assert {"optimizer.pt", "trainer_state.json", "method_state.pt"} <= {path.name for path in place.iterdir()}
    assert not [name for name in pushed if "training_args" in name]
    resumed = make_trainer(tiny_backbone, tmp_path / "elsewhere", max_steps=5)
    resumed.train(resume_from_checkpoint=True)
    assert weights_digest(resumed.model) == weights_digest(trainer.model)


def test_the_token_is_in_no_file_no_log_and_no_error(hub, tiny_backbone, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("HF_TOKEN")
    trainer = pushing_trainer(tiny_backbone, tmp_path / "run", max_steps=3, hub_token="hf_writer", lora=True)
    trainer.train()
    trainer.push_to_hub(tags="final")
    assert len(titles(hub)) == 2
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in everything if path.name == "training_args.bin"]
    assert [path for path in everything if b"hf_writer" in path.read_bytes()] == []
    assert not [name for name, file in files(hub).items() if b"hf_writer" in file.content]
    assert "hf_writer" not in caplog.text
    assert trainer.args.hub_token == "hf_writer"


@pytest.mark.parametrize(
    ("token", "sentence"), [("hf_wrong", "got none or one that is not valid"), ("hf_reader", "may not")]
)
def test_a_token_that_does_not_do_is_said_before_training(hub, tiny_backbone, tmp_path, token, sentence):
    with pytest.raises(ModelError, match=sentence) as error:
        pushing_trainer(tiny_backbone, tmp_path / "run", hub_token=token)
    assert token not in str(error.value)
    assert error.value.__cause__ is None


def test_a_push_on_the_way_that_fails_is_warned_of_and_the_last_one_can_be_repeated(
    hub, tiny_backbone, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("hfssl.hub.upload.TRIES", 2)
    monkeypatch.setattr("hfssl.hub.upload.FIRST_WAIT", 0.0)
    trainer = pushing_trainer(tiny_backbone, tmp_path / "run", max_steps=3)
    hub.faults = [Fault("POST", "/commit/", 500) for _ in range(2)]
    trainer.train()
    assert trainer.state.global_step == 3
    assert "A push in mid-training failed; training goes on." in caplog.text
    assert titles(hub) == []
    hub.faults = [Fault("POST", "/commit/", 503) for _ in range(2)]
    with pytest.raises(ModelError, match="got the status 503"):
        trainer.push_to_hub()
    saved = hfssl.from_pretrained(tmp_path / "run")  # nothing is lost
    assert torch.equal(fixed_logits(saved), fixed_logits(trainer.model))
    hub.faults = [Fault("POST", "/commit/", 503)]
    trainer.push_to_hub()
    assert titles(hub) == ["End of training"]
    assert not list((tmp_path / "run").glob(".push.*"))


def test_a_push_goes_to_its_revision_and_its_private_repository(hub, tiny_backbone, tmp_path):
    settings = {"hub_revision": "draft", "hub_private_repo": True, "hub_strategy": "end", "max_steps": 2}
    trainer = pushing_trainer(tiny_backbone, tmp_path / "run", **settings)
    trainer.train()
    future = trainer.push_to_hub(blocking=False)
    assert future.result(timeout=60).oid == hub.repos[REPO].branches["draft"]
    assert hub.repos[REPO].private
    assert "model.safetensors" in files(hub, "draft")
    assert "model.safetensors" not in files(hub)


def test_push_to_hub_without_the_argument(hub, tiny_backbone, tmp_path):
    trainer = make_trainer(tiny_backbone, tmp_path / "reviews", max_steps=2)
    trainer.train()
    assert hub.log == []
    trainer.push_to_hub()
    assert torch.equal(fixed_logits(hfssl.from_pretrained(REPO)), fixed_logits(trainer.model))


@pytest.mark.parametrize(
    ("method", "adapter"), [("supervised", "lora"), ("self_training", "none"), ("masked_span", "lora")]
)
def test_a_recipe_pushes_what_it_has_made(hub, small_table, tiny_backbone, tmp_path, method, adapter):  # noqa: F811
    argv = ["--config", str(ROOT / f"recipes/{method}/trec6.yaml"), "--train", str(small_table), "--test="]
    argv += ["--backbone", str(tiny_backbone), "--output_dir", str(tmp_path / "out"), "--labels_per_class", "4"]
    argv += ["--max_steps", "3", "--per_device_train_batch_size", "4", "--max_length", "16", "--use_cpu", "true"]
    argv += ["--push_to_hub", "true", "--hub_model_id", REPO, "--adapter", adapter, "--disable_tqdm", "true"]
    results = train_recipe(parse_recipe(argv))
    assert titles(hub)[-1] == "End of training"
    assert len(titles(hub)) == (2 if method == "supervised" else 1)
    pushed = files(hub)
    assert {"README.md", "results.json", "splits/manifest.json"} <= pushed.keys()
    assert json.loads(pushed["results.json"].content) == json.loads(json.dumps(results))
    text = small_table.read_text().splitlines()[5].split(",")[0]
    assert not [name for name, file in pushed.items() if text.encode() in file.content]
    card = ModelCard(pushed["README.md"].content.decode())
    card.validate()
    if method == "masked_span":
        assert "model.safetensors" in pushed  # merged: a backbone for the next recipe
        assert hfssl.load_classifier(REPO, ["a", "b"], seed=0).config.num_labels == 2
    else:
        assert torch.equal(
            fixed_logits(hfssl.from_pretrained(REPO)), fixed_logits(hfssl.from_pretrained(tmp_path / "out/model"))
        )
        assert {result.metric_type for result in card.data.eval_results} == {"accuracy", "f1"}
        assert "95% interval" in card.text


@pytest.mark.distributed
@pytest.mark.parametrize("token", ["hf_writer", "hf_reader"])
def test_two_ranks_push_once_and_stop_together(hub, tiny_backbone, tmp_path, token):
    settings = {"push_to_hub": True, "hub_model_id": REPO, "hub_token": token, "max_steps": 3, "lora": True}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = ROOT / "tests/helpers/train_tiny.py"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "HF_ENDPOINT": hub.url}
    # httpx2 calls an argument deprecated that huggingface_hub uses, as in the filter above.
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "PYTHONWARNINGS": ""}
    del environment["HF_TOKEN"]
    command = [*launcher, str(script), str(tiny_backbone), str(tmp_path / "run"), json.dumps(settings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if token == "hf_reader":
        assert done.returncode != 0
        assert done.stderr.count("ModelError: Expected a token that may write to") >= 2  # each rank, with one sentence
        assert hub.repos == {}
        return
    assert done.returncode == 0, done.stderr[-3000:]
    assert titles(hub) == ["Training in progress, step 3"]
    assert hfssl.from_pretrained(REPO).config.id2label == dict(enumerate(LABEL_NAMES))
