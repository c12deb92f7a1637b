"""Models by their Hub id: the real client against a server on the loopback device."""

from __future__ import annotations

import time

import huggingface_hub.constants
import pytest
import torch

import hfssl
from hfssl.deploy.push import push
from hfssl.errors import ModelError
from tests.helpers.encoders import fixed_logits
from tests.helpers.hub_server import REPO, Fault, File, files

# Of huggingface_hub's own upload over plain HTTP, which the real Hub has replaced by Xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


@pytest.fixture
def run(finished_lora_run):
    return finished_lora_run


def test_a_pushed_model_loads_by_its_id_and_again_without_a_network(hub, run, monkeypatch):
    push(run, REPO)
    expected = fixed_logits(hfssl.from_pretrained(run / "model"))
    assert torch.equal(fixed_logits(hfssl.from_pretrained(REPO)), expected)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(fixed_logits(hfssl.from_pretrained(REPO)), expected)
    with pytest.raises(ModelError, match="neither, and the Hub cannot be reached, because HF_HUB_OFFLINE"):
        hfssl.from_pretrained("ada/other")


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


def test_a_model_in_pickles_is_not_even_downloaded(hub, run):
    push(run, REPO)
    kept = {name: file for name, file in files(hub).items() if name != "model.safetensors"}
    hub.repos[REPO].add("main", "pickled", kept | {"pytorch_model.bin": File(b"pickle", True)})
    with pytest.raises(ModelError, match=r"Expected model\.safetensors"):
        hfssl.from_pretrained(REPO)
    assert not [path for _, path, _ in hub.log if "pytorch_model.bin" in path]


READ = {
    "info": ("GET", r"/api/models/.*/revision/"),
    "head": ("HEAD", r"/resolve/"),
    "file": ("GET", r"/resolve/.*config\.json"),
    "weights": ("GET", r"safetensors|/lfs/|/cdn/"),
}


@pytest.fixture
def no_patience(monkeypatch):
    """The client waits for a short time, and tries a few times."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_ETAG_TIMEOUT", 1)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def outcome(work) -> str:
    """`""` for a success, else the one sentence that a user reads."""
    try:
        work()
    except ModelError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("where", READ)
@pytest.mark.parametrize("what", ["lost", "short", "page", "gated", 429, 500, 503])
def test_every_fault_of_a_download_is_one_sentence_or_a_success(hub, run, no_patience, caplog, where, what):
    push(run, REPO)
    method, path = READ[where]
    hub.faults += [Fault(method, path, what) for _ in range(40)]
    said = outcome(lambda: hfssl.from_pretrained(REPO, token="hf_reader"))
    if said:
        assert REPO in said
        assert said.startswith("Expected ")
        assert "\n" not in said
    hub.faults.clear()
    assert outcome(lambda: hfssl.from_pretrained(REPO, token="hf_reader")) == ""  # nothing half is left in the cache
    hub.faults += [Fault(method, path, what) for _ in range(40)]
    if what != "gated":  # who may not read any more is told so
        assert outcome(lambda: hfssl.from_pretrained(REPO, token="hf_reader")) == ""  # from the cache
    assert "hf_reader" not in said + caplog.text


def test_the_sentences_name_the_cause(hub, run, no_patience, monkeypatch):
    push(run, REPO)
    for what, cause in (("gated", "ask for access at huggingface.co/ada/reviews"), (429, "limit of requests")):
        hub.faults[:] = [Fault("GET", r"/api/models/", what) for _ in range(40)]
        assert cause in outcome(lambda: hfssl.from_pretrained(REPO))
    hub.faults.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "because HF_HUB_OFFLINE is set: unset it" in outcome(lambda: hfssl.from_pretrained(REPO))


@pytest.mark.parametrize("token", ["hf_r\u00e9ader", "hf_reader\n", "hf reader"])
def test_a_token_that_no_request_can_carry_is_not_shown(hub, run, token):
    for work in (lambda: hfssl.from_pretrained(REPO, token=token), lambda: push(run, REPO, token=token)):
        said = outcome(work)
        assert "Expected a token of letters, digits and underscores" in said
        assert token not in said
    assert not hub.log
