"""Pushing and loading with the real `huggingface_hub` client, against a server on the loopback device."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub import ModelCard

import hfssl
import hfssl.pipeline.presets
from hfssl.cli.main import main
from hfssl.deploy.push import push
from hfssl.errors import ModelError
from tests.helpers.hub_server import REPO, Fault, File, files
from tests.helpers.texts import CUES

# Of huggingface_hub's own upload over plain HTTP, which the real Hub has replaced by Xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


@pytest.fixture
def run(finished_lora_run):
    return finished_lora_run


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(5, 13).view(2, 4)).logits


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
    assert torch.equal(torch.load(tmp_path / "logits.pt"), logits(hfssl.from_pretrained(run / "adapter")))


def test_a_pushed_model_loads_by_its_id_and_again_without_a_network(hub, run, monkeypatch):
    push(run, REPO)
    expected = logits(hfssl.from_pretrained(run / "model"))
    assert torch.equal(logits(hfssl.from_pretrained(REPO)), expected)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(logits(hfssl.from_pretrained(REPO)), expected)
    with pytest.raises(ModelError, match="neither, and the Hub cannot be reached"):
        hfssl.from_pretrained("ada/other")


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
    assert torch.equal(logits(adapter), logits(hfssl.from_pretrained(run / "adapter")))
    assert not torch.equal(logits(adapter), logits(hfssl.from_pretrained(REPO)))  # which has its temperature in it


@pytest.mark.parametrize(
    ("token", "sentence"),
    [("hf_wrong", "got none or one that is not valid"), ("hf_reader", "may not"), ("hf_other", "may not")],
)
def test_a_token_that_does_not_do_is_one_sentence_without_the_token(hub, run, token, sentence, caplog):
    with pytest.raises(ModelError, match=sentence) as error:
        push(run, REPO, token=token)
    assert "hf_" not in str(error.value)
    assert "hf_" not in caplog.text
    assert error.value.__cause__ is None  # a traceback would show the request
    assert hub.repos == {}


def test_two_failures_of_the_server_and_then_success(hub, run, caplog):
    hub.faults = [Fault("POST", "/commit/", 503), Fault("POST", "/commit/", 503)]
    waits = []
    push(run, REPO, wait=waits.append)
    assert waits == [1.0, 2.0]
    assert "the hub answered 503" in caplog.text.lower()
    assert len(hub.repos[REPO].commits) == 2  # the initial one and ours


def test_a_rate_limit_is_waited_for_as_long_as_the_hub_asks(hub, run):
    hub.faults = [Fault("POST", "/commit/", 429, retry_after=7), Fault("POST", "/commit/", 429)]
    waits = []
    push(run, REPO, wait=waits.append)
    assert waits == [7.0, 2.0]
    assert len(hub.repos[REPO].commits) == 2


def test_a_server_that_stays_away_changes_nothing_and_the_push_can_be_repeated(hub, run):
    hub.faults = [Fault("POST", "/commit/", 500) for _ in range(5)]
    with pytest.raises(ModelError, match="got the status 500: nothing was changed there"):
        push(run, REPO, wait=lambda seconds: None)
    assert len(hub.repos[REPO].commits) == 1
    push(run, REPO)
    assert "model.safetensors" in files(hub)


def test_a_connection_that_is_cut_in_the_middle_of_an_upload(hub, run, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's own waits between its tries
    hub.faults = [Fault("PUT", "/lfs/", "cut") for _ in range(30)]
    with pytest.raises(ModelError, match="connection failed 5 times"):
        push(run, REPO, wait=lambda seconds: None)
    assert len(hub.repos[REPO].commits) == 1
    assert hub.repos[REPO].objects == {}
    hub.faults.clear()
    push(run, REPO)
    assert files(hub)["model.safetensors"].content == (run / "model" / "model.safetensors").read_bytes()


def test_a_commit_whose_answer_is_lost_is_not_taken_for_somebody_elses(hub, run):
    hub.faults = [Fault("POST", "/commit/", "lost")]
    done = push(run, REPO, wait=lambda seconds: None)
    assert len(hub.repos[REPO].commits) == 2
    assert done.oid == hub.repos[REPO].branches["main"]


def test_large_files_that_have_arrived_are_not_sent_again(hub, run):
    hub.faults = [Fault("POST", "/commit/", 503)]
    push(run, REPO, wait=lambda seconds: None)
    uploads = [path for method, path, status in hub.log if method == "PUT"]
    assert len(uploads) == len(set(uploads)) == 1


def test_a_push_in_between_is_refused_with_the_remedy(hub, run):
    push(run, REPO)

    def somebody_else():
        hub.repos[REPO].add("main", "theirs", {**files(hub), "theirs.txt": File(b"theirs", False)})

    hub.meanwhile = somebody_else
    with pytest.raises(ModelError, match="somebody else pushed to it.*repeat the command"):
        push(run, REPO, artifact="adapter")
    assert "adapter_model.safetensors" not in files(hub)
    push(run, REPO, artifact="adapter")
    assert {"theirs.txt", "adapter_model.safetensors"} <= files(hub).keys()


def test_a_repository_holds_one_kind_of_model(hub, run):
    """Else the adapter of an earlier push would be loaded in place of the model of a later one, or the other way."""
    push(run, REPO, artifact="adapter")
    push(run, REPO)
    assert torch.equal(logits(hfssl.from_pretrained(REPO)), logits(hfssl.from_pretrained(run / "model")))
    assert not {"adapter_config.json", "adapter_model.safetensors", "hfssl_labels.json"} & files(hub).keys()
    push(run, REPO, artifact="adapter")
    assert torch.equal(logits(hfssl.from_pretrained(REPO)), logits(hfssl.from_pretrained(run / "adapter")))
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
    assert "| labeled | 24 | `" in card.text


def test_a_private_repository_is_seen_by_its_owner_only(hub, run, monkeypatch):
    push(run, REPO, private=True)
    assert hub.repos[REPO].private
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(ModelError, match="for a private model log in"):
        hfssl.from_pretrained(REPO)
    assert hfssl.from_pretrained(REPO, token="hf_reader").config.num_labels == 3


def test_a_revision_is_pushed_and_loaded_on_its_own(hub, run):
    push(run, REPO, revision="draft")
    assert "model.safetensors" in files(hub, "draft")
    assert "model.safetensors" not in files(hub)
    assert hfssl.from_pretrained(REPO, revision="draft").config.num_labels == 3
    with pytest.raises(ModelError, match="no 'final' there"):
        hfssl.from_pretrained(REPO, revision="final")


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


@pytest.mark.parametrize("name", ["a/b/c", "two words", ""])
def test_a_name_that_no_repository_can_have_is_one_sentence(hub, run, name, capsys):
    assert main(["push", str(run), "--repo-id", name]) == 2
    message = capsys.readouterr().err
    assert message.startswith("hfssl: error: Expected a repository as name or namespace/name")
    assert hub.log == []


def test_an_adapter_on_a_folder_of_this_machine_is_warned_of(hub, run, caplog):
    push(run, REPO, artifact="adapter", dry_run=True)
    assert "which other machines cannot load" in caplog.text
    caplog.clear()
    push(run, REPO, dry_run=True)
    assert caplog.text == ""


def test_a_model_in_pickles_is_not_even_downloaded(hub, run):
    push(run, REPO)
    kept = {name: file for name, file in files(hub).items() if name != "model.safetensors"}
    hub.repos[REPO].add("main", "pickled", kept | {"pytorch_model.bin": File(b"pickle", True)})
    with pytest.raises(ModelError, match=r"Expected model\.safetensors"):
        hfssl.from_pretrained(REPO)
    assert not [path for _, path, _ in hub.log if "pytorch_model.bin" in path]


def test_the_double_is_as_strict_as_the_hub(hub, run):
    """What the tests above rest on: wrong hashes, unknown objects and strangers are turned away."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import get_session

    api, session = HfApi(), get_session()
    assert api.whoami()["name"] == "ada"
    api.create_repo("reviews")
    head = {"Authorization": "Bearer hf_writer", "Content-Type": "application/x-ndjson"}
    assert session.put(f"{hub.url}/lfs/{REPO}/{'0' * 64}/3", content=b"abc").status_code == 400
    lines = [{"key": "header", "value": {"summary": "x", "description": ""}}]
    pointer = {"path": "a.bin", "algo": "sha256", "oid": "0" * 64, "size": 3}
    lines.append({"key": "lfsFile", "value": pointer})
    body = "\n".join(map(json.dumps, lines))
    answer = session.post(f"{hub.url}/api/models/{REPO}/commit/main", content=body, headers=head)
    assert answer.status_code == 400
    assert session.post(f"{hub.url}/api/models/{REPO}/commit/main", content=body).status_code in (401, 415)
    assert len(hub.repos[REPO].commits) == 1
