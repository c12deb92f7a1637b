"""Models by their Hub id: the real client against a server on the loopback device."""

from __future__ import annotations

import huggingface_hub.constants
import pytest
import torch

import hfssl
from hfssl.deploy.push import push
from hfssl.errors import ModelError
from tests.helpers.encoders import fixed_logits
from tests.helpers.hub_server import REPO, File, files

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
    with pytest.raises(ModelError, match="neither, and the Hub cannot be reached"):
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
