"""One commit to the Hub, with retries: the real client against a server on the loopback device."""

from __future__ import annotations

import json

import pytest

from hfssl.cli.main import main
from hfssl.deploy.push import push
from hfssl.errors import ModelError
from tests.helpers.hub_server import REPO, Fault, File, files

# Of huggingface_hub's own upload over plain HTTP, which the real Hub has replaced by Xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


@pytest.fixture
def run(finished_lora_run):
    return finished_lora_run


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


@pytest.mark.parametrize("name", ["a/b/c", "two words", ""])
def test_a_name_that_no_repository_can_have_is_one_sentence(hub, run, name, capsys):
    assert main(["push", str(run), "--repo-id", name]) == 2
    message = capsys.readouterr().err
    assert message.startswith("hfssl: error: Expected a repository as name or namespace/name")
    assert hub.log == []


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


def test_what_the_hub_refuses_is_told_with_its_reason_and_without_a_token(hub, run):
    message = 'Invalid metadata: "license" must be one of [apache-2.0, ...] for hf_writer'
    hub.faults.append(Fault("POST", r"/commit/", 400, message))
    with pytest.raises(ModelError, match='refused as not valid .*"license" must be one of') as refused:
        push(run, REPO, license="free-beer")
    assert "hf_writer" not in str(refused.value)
    assert "\n" not in str(refused.value)
