"""Shared fixtures: tiny models and tokenizers made on the spot, one thread, no network.

Also the gate against deprecated calls. Upstream's `warnings` become errors (`filterwarnings` in pyproject.toml;
`PYTHONWARNINGS` in processes that tests start); deprecation records of its loggers fail the test here.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing downloads at test time
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["PYTHONWARNINGS"] = ",".join(
    f"error::{name}" for name in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
)

import pytest
import torch
from filelock import FileLock

torch.set_num_threads(1)  # a 3-step tiny training takes 0.4 s instead of 10 s on a loaded 2-core machine

UPSTREAM = ("transformers", "peft", "accelerate", "datasets", "huggingface_hub", "torch")


class _DeprecationRecords(logging.Handler):
    """Keeps what upstream loggers say about deprecated calls."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "deprecated" in message.lower():
            self.messages.append(f"{record.name}: {message}")


def pytest_addoption(parser):
    """Options of the behaviour matrix, `tests/methods/test_matrix.py`."""
    parser.addoption("--matrix", action="store_true", help="Run all cases of the matrix, not a pairwise selection.")
    parser.addoption("--slow", action="store_true", help="Run the tests that are marked as slow, too.")
    parser.addoption("--shard", default="1/1", metavar="I/N", help="Run the I-th of N parts of the matrix.")


def pytest_collection_modifyitems(config, items):
    """Files with the real backbone first: the slowest test of all must not be the last, with the other cores idle.

    Tests that are marked as slow are left out, unless `--slow` or `--matrix` asks for them.
    """
    if not (config.getoption("--slow") or config.getoption("--matrix")):
        left_out = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
    slow = {item.path for item in items if item.get_closest_marker("real_model")}
    items.sort(key=lambda item: item.path not in slow)


_deprecations = _DeprecationRecords()
for _name in UPSTREAM:  # directly, because some of them do not hand their records on to the root logger
    logging.getLogger(_name).addHandler(_deprecations)


@pytest.fixture(autouse=True)
def no_deprecated_calls():
    """Fails the first test after which a library has logged that something is deprecated."""
    yield
    messages, _deprecations.messages = _deprecations.messages, []
    assert not messages, "deprecated upstream calls:\n" + "\n".join(messages)


@pytest.fixture(autouse=True, scope="module")
def cheap_garbage_collection():
    """Takes what is there (modules, above all) out of the collector's sight.

    accelerate collects after every training, which takes 0.4 s with all modules: half of a tiny run of `fit`.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_tokenizer_dir(tmp_path_factory):
    """A folder with a BERT-style WordPiece tokenizer of about 100 tokens."""
    from transformers import BertTokenizerFast

    from tests.helpers.texts import WORDS

    folder = tmp_path_factory.mktemp("tiny_tokenizer")
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        *letters,
        *("##" + c for c in letters),
        ".",
        ",",
        "?",
    ]
    vocabulary = list(dict.fromkeys(pieces))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64)
    assert len(tokenizer) == len(vocabulary)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_tokenizer_dir):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_tokenizer_dir)


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory, tiny_tokenizer):
    """A folder that `AutoModel` loads: an encoder without any head, and its tokenizer (like MiniLM's folder)."""
    from transformers import BertModel

    from tests.helpers.encoders import tiny_bert_config

    folder = tmp_path_factory.mktemp("tiny_backbone")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(tiny_bert_config(len(tiny_tokenizer))).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The server, as the Hub of this process, with an empty cache and the writer's token."""
    import huggingface_hub.constants

    from tests.helpers.hub_server import HubServer

    with HubServer().running() as server:
        settings = {"ENDPOINT": server.url, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": False}
        settings |= {"HF_HUB_DISABLE_XET": True, "HF_TOKEN_PATH": str(tmp_path / "token")}
        template = huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE
        settings["HUGGINGFACE_CO_URL_TEMPLATE"] = template.replace(huggingface_hub.constants.ENDPOINT, server.url)
        for name, value in settings.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # it would go on talking to an earlier server
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        yield server


@pytest.fixture(scope="session")
def teacher(tiny_backbone, tmp_path_factory):
    """A folder with a classifier that predicts each class for some rows of the pool of `rounds_tiny`."""
    from tests.helpers.rounds_tiny import train_teacher

    return train_teacher(tiny_backbone, tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def undisturbed(tiny_backbone, teacher, tmp_path_factory):
    """Two rounds of self-training with this teacher that nothing interrupts."""
    from tests.helpers.rounds_tiny import hidden_labels, run_rounds

    return run_rounds(tiny_backbone, teacher, tmp_path_factory.mktemp("undisturbed"), hidden=hidden_labels())


@pytest.fixture
def words(tiny_backbone, tmp_path, monkeypatch):
    """Options of `hfssl fit` on a tiny backbone; labels only, unless a test asks for more."""
    import hfssl.pipeline.presets
    from tests.helpers.fit_tiny import TINY

    monkeypatch.setitem(hfssl.pipeline.presets.PRESETS, "quick", TINY)
    options = ["--backbone", str(tiny_backbone), "--preset", "quick", "--max-length", "32", "--quiet"]
    return [*options, "--rounds", "0", "--cross-fit", "0", "--no-pretext", "--output-dir", str(tmp_path / "run")]


@pytest.fixture
def fit(words, capsys):
    """Runs `hfssl fit` with `words` in this process; returns exit status and stderr."""
    from hfssl.cli.main import main

    def run(train, *more: str) -> tuple[int, str]:
        status = main(["fit", "--train", str(train), *words, *more])
        return status, capsys.readouterr().err

    return run


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Path:
    """A CSV table of 240 reviews of three classes."""
    from tests.helpers.texts import CUES, make_text, write_csv

    names = list(CUES)
    rows = [{"text": make_text(i, names[i % 3]), "label": names[i % 3]} for i in range(240)]
    return write_csv(tmp_path_factory.mktemp("table") / "reviews.csv", rows)


def made_once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills once for all workers of pytest-xdist; the others wait for it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    place = shared / name
    with FileLock(shared / f"{name}.lock"):
        if not (place / "made").exists():
            shutil.rmtree(place, ignore_errors=True)  # what is left of a worker that failed
            place.mkdir()
            make(place)
            (place / "made").touch()
    return place


def finished(tmp_path_factory, table: Path, backbone: Path, adapter: str) -> Iterator[Path]:
    """A finished run of `fit`, with all of its stages; a test that changes it changes a copy."""

    def make(place: Path) -> None:
        import hfssl.pipeline.presets
        from hfssl.pipeline.fit import fit
        from tests.helpers.fit_tiny import TINY

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(hfssl.pipeline.presets.PRESETS, "quick", TINY)
            options = {"preset": "quick", "labels_per_class": 10, "max_length": 32, "quiet": True, "adapter": adapter}
            options |= {"keep_stages": True}  # some tests look at them
            result = fit(str(table), backbone=str(backbone), output_dir=str(place / "run"), **options)
        (place / "returned.json").write_text(json.dumps(result.results))

    from tests.helpers.tiny_tables import contents

    folder = made_once(tmp_path_factory, f"finished-{adapter}", make) / "run"
    before = contents(folder)
    yield folder
    assert contents(folder) == before, "a test has changed the run that others share: let it change a copy"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, table, tiny_backbone) -> Iterator[Path]:
    """A finished run on `table` with the full model, shared by all tests: read only."""
    yield from finished(tmp_path_factory, table, tiny_backbone, "none")


@pytest.fixture(scope="session")
def finished_lora_run(tmp_path_factory, table, tiny_backbone) -> Iterator[Path]:
    """A finished run on `table` with an adapter, shared by all tests: read only."""
    yield from finished(tmp_path_factory, table, tiny_backbone, "lora")


@pytest.fixture(scope="session")
def small_table(tmp_path_factory):
    """60 rows of three classes, each told by words of its own."""
    from tests.helpers.texts import WORDS

    path = tmp_path_factory.mktemp("table") / "small.csv"
    words = {"praise": ["good", "great", "fun"], "blame": ["bad", "awful", "dull"], "ask": ["who", "what", "when"]}
    rows = [
        f"{words[label][i % 3]} {words[label][i % 2]} the {WORDS[(7 * i) % len(WORDS)]} {WORDS[i]} of it,{label}\n"
        for label in words
        for i in range(20)
    ]
    path.write_text("text,label\n" + "".join(rows), encoding="utf-8")
    return path
