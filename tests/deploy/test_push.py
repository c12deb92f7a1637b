"""What a run pushes, its card and its command: the real client against a server on the loopback device."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard

import hfssl
from hfssl.cli.main import main
from hfssl.deploy.push import push
from hfssl.errors import DamagedFile, ModelError
from tests.helpers.encoders import fixed_logits
from tests.helpers.hub_server import REPO, files
from tests.helpers.texts import CUES

# Of huggingface_hub's own upload over plain HTTP, which the real Hub has replaced by Xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


@pytest.fixture
def run(finished_lora_run):
    return finished_lora_run


def test_a_pushed_adapter_loads_by_its_id_in_a_fresh_process_to_the_bit(hub, run, tmp_path):
    done = push(run, "reviews", artifact="adapter")
    assert done.url.startswith(f"{hub.url}/{REPO}/commit/")
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "results.json"} <= files(hub).keys()
    script = (
        "import sys, torch, hfssl\n"
        f"model = hfssl.from_pretrained({REPO!r})\n"
        "print(model.config.id2label)\n"
        "with torch.no_grad():\n"
        "    torch.save(model(input_ids=torch.arange(5, 13).view(2, 4)).logits, sys.argv[1])\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    fresh = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "logits.pt")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert fresh.returncode == 0, fresh.stderr[-3000:]
    assert all(name in fresh.stdout for name in CUES)
    assert torch.equal(torch.load(tmp_path / "logits.pt"), fixed_logits(hfssl.from_pretrained(run / "adapter")))


def test_a_push_is_one_commit_with_card_and_results_and_no_text_of_the_users(hub, run, table):
    push(run, REPO, artifact="both")
    repo = hub.repos[REPO]
    assert [commit.title for commit in repo.commits] == ["initial commit", "Push with hfssl"]
    pushed = files(hub)
    assert {"model.safetensors", "adapter/adapter_model.safetensors", "splits/manifest.json"} <= pushed.keys()
    assert not [name for name in pushed if name.endswith((".arrow", ".html", ".npz"))]
    everything = b"\n".join(file.content for file in pushed.values())
    with open(table, newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert len(texts) == 240
    assert not [text for text in texts if text.encode() in everything]
    assert f'pipeline("text-classification", model="{REPO}")' in pushed["README.md"].content.decode()
    push(run, REPO, artifact="both", include_report=True)
    assert "report.html" in files(hub)


def test_the_card_of_an_adapter_says_how_to_load_it(hub, run, capsys):
    push(run, REPO, artifact="adapter")
    card = files(hub)["README.md"].content.decode()
    assert "library_name: peft" in card
    snippet = card.split("```python\n")[1].split("```")[0]
    exec(compile(snippet, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert all(name in shown for name in CUES)


def test_the_adapter_beside_a_model_loads_as_the_card_says(hub, run):
    push(run, REPO, artifact="both")
    assert f'hfssl.from_pretrained("{REPO}", subfolder="adapter")' in files(hub)["README.md"].content.decode()
    adapter = hfssl.from_pretrained(REPO, subfolder="adapter")
    assert torch.equal(fixed_logits(adapter), fixed_logits(hfssl.from_pretrained(run / "adapter")))
    assert not torch.equal(
        fixed_logits(adapter), fixed_logits(hfssl.from_pretrained(REPO))
    )  # which has its temperature in it


def test_a_repository_holds_one_kind_of_model(hub, run):
    """Else the adapter of an earlier push would be loaded in place of the model of a later one, or the other way."""
    push(run, REPO, artifact="adapter")
    push(run, REPO)
    assert torch.equal(fixed_logits(hfssl.from_pretrained(REPO)), fixed_logits(hfssl.from_pretrained(run / "model")))
    assert not {"adapter_config.json", "adapter_model.safetensors", "hfssl_labels.json"} & files(hub).keys()
    push(run, REPO, artifact="adapter")
    assert torch.equal(fixed_logits(hfssl.from_pretrained(REPO)), fixed_logits(hfssl.from_pretrained(run / "adapter")))
    assert "model.safetensors" not in files(hub)


def test_the_folders_of_this_machine_stay_at_home(hub, run):
    push(run, REPO)
    for name in ("README.md", "results.json"):
        assert str(run.parent) not in files(hub)[name].content.decode()


def test_the_card_passes_the_hubs_rules_and_names_the_license(hub, run):
    push(run, REPO, license="apache-2.0")
    card = ModelCard(files(hub)["README.md"].content.decode())
    card.validate()
    assert card.data.license == "apache-2.0"
    assert [path for _, path, _ in hub.log if path == "/api/validate-yaml"]
    assert {"devlin2019bert", "khosla2020supervised", "gao2021simcse", "hu2022lora"} <= set(
        re.findall(r"@\w+{(\w+),", card.text)
    )
    assert "| labeled | 30 | `" in card.text


def test_a_dry_run_sends_nothing(hub, run, capsys):
    assert main(["push", str(run), "--repo-id", REPO, "--dry-run"]) == 0
    assert hub.log == []
    printed = capsys.readouterr().out
    assert "model.safetensors" in printed
    assert "Nothing was sent" in printed


def test_the_command_pushes_and_prints_where(hub, run, capsys):
    assert main(["push", "--folder", str(run), "--repo-id", REPO, "--artifact", "adapter", "--private"]) == 0
    assert f"{hub.url}/{REPO}/commit/{hub.repos[REPO].branches['main']}" in capsys.readouterr().out


def test_what_is_not_there_or_a_pickle_is_refused_by_name(hub, run, tmp_path):
    with pytest.raises(ModelError, match=r"results\.json, config\.json or adapter_config\.json"):
        push(tmp_path, REPO)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="pytorch_model.bin' is a pickle"):
        push(tmp_path, REPO)
    assert hub.log == []


def test_an_adapter_on_a_folder_of_this_machine_is_warned_of(hub, run, caplog):
    push(run, REPO, artifact="adapter", dry_run=True)
    assert "which other machines cannot load" in caplog.text
    caplog.clear()
    push(run, REPO, dry_run=True)
    assert caplog.text == ""


def test_only_files_that_hfssl_wrote_are_pushed_and_only_as_it_wrote_them(hub, run, tmp_path, caplog):
    shutil.copytree(run, tmp_path / "run")
    folder = tmp_path / "run"
    (folder / "model" / ".env").write_text("HF_TOKEN=hf_writer")
    (folder / "model" / "passwords.json").write_text("{}")
    names = push(folder, REPO).files
    assert "model.safetensors" in names
    assert not {"passwords.json", ".env", "hfssl_files.json"} & set(names)
    assert "Not pushed, because hfssl knows no such file of a model: '.env', 'passwords.json'" in caplog.text
    weights = folder / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"model.safetensors' as hfssl wrote it, found another content"):
        push(folder, REPO)


def test_a_folder_of_another_program_is_pushed_by_the_names_of_its_files(run, tmp_path, caplog):
    shutil.copytree(run / "model", tmp_path / "model")
    (tmp_path / "model" / "hfssl_files.json").unlink()
    (tmp_path / "model" / "notes.md").write_text("mine")
    (tmp_path / "model" / "vocab.txt").write_text("a")
    names = set(push(tmp_path / "model", REPO, dry_run=True).files)
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    assert "notes.md" not in names
    assert "'notes.md'" in caplog.text
