"""Models as ONNX: PyTorch's logits at any shape, label names, int8 with its measured cost, complete files or none."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from datasets import Dataset
from scipy.special import softmax
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    LongformerConfig,
    LongformerModel,
    ModernBertConfig,
    ModernBertModel,
)

import hfssl
import hfssl.pipeline.presets
from hfssl.cli.main import main
from hfssl.data.tokenization import tokenize_dataset
from hfssl.deploy.onnx_export import export_onnx, relative_difference
from hfssl.deploy.onnx_runtime import OnnxClassifier
from hfssl.errors import ConfigurationError, DataError, ModelError
from hfssl.models.adapters import add_adapter, build_lora_config
from hfssl.models.checkpoints import save_checkpoint
from hfssl.models.loading import load_classifier
from tests.helpers import ROOT
from tests.helpers.encoders import ENCODERS, SIZES, make_encoder, tiny_bert_config
from tests.helpers.texts import CUES, make_text, write_csv

NAMES = ["größer", 'ham, "egg"', "spam"]
SHAPES = [(1, 1), (1, 9), (4, 2), (3, 60), (17, 23)]
# As in deberta-v3: no absolute positions, relative ones in buckets; and a window that is shorter than the texts.
DEBERTA_V3 = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
MAKERS = {
    "minilm": lambda vocab: BertModel(tiny_bert_config(vocab)),
    **{name: partial(make_encoder, name) for name in ENCODERS},
    "deberta-v3": lambda vocab: DebertaV2Model(DebertaV2Config(vocab_size=vocab, **SIZES, **DEBERTA_V3)),
    "modernbert-local": lambda vocab: ModernBertModel(
        ModernBertConfig(vocab_size=vocab, pad_token_id=0, local_attention=8, global_attn_every_n_layers=2, **SIZES)
    ),
    "longformer": lambda vocab: LongformerModel(LongformerConfig(vocab_size=vocab, attention_window=4, **SIZES)),
}


@pytest.fixture(scope="module")
def make_classifier(tmp_path_factory, tiny_tokenizer):
    """Saves a classifier, with noise on all weights because fresh ones give logits that are all alike; its folder."""

    def make(architecture: str, pooling: str = "stock", lora: bool = False) -> Path:
        folder = tmp_path_factory.mktemp(architecture)
        generator = torch.Generator().manual_seed(1)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            MAKERS[architecture](len(tiny_tokenizer)).save_pretrained(folder / "backbone")
        tiny_tokenizer.save_pretrained(folder / "backbone")
        model = load_classifier(folder / "backbone", NAMES, pooling=pooling, seed=0)
        if lora:
            model = add_adapter(model, build_lora_config(model), seed=0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        save_checkpoint(model, tiny_tokenizer, folder / "saved", NAMES)
        return folder / "saved"

    return make


@pytest.fixture(scope="module")
def minilm(make_classifier):
    return make_classifier("minilm")


@pytest.fixture(scope="module")
def exported(minilm, tmp_path_factory):
    """What `export_onnx` returns for `minilm`, int8 included: read only."""
    return export_onnx(minilm, tmp_path_factory.mktemp("exported") / "onnx", int8=True)


def random_batch(rows: int, length: int, types: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * rows + length)
    ids = torch.randint(5, 90, (rows, length), generator=generator)
    mask = (torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=generator)).long()
    mask[0] = 1
    kinds = torch.randint(types, (rows, length), generator=generator)
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": kinds * mask}  # padding is 0 in all


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("architecture", "pooling"),
    [
        *(
            pytest.param(name, "stock", marks=[pytest.mark.slow] * (name not in ("minilm", "roberta", "distilbert")))
            for name in MAKERS
            if name != "longformer"
        ),
        ("minilm", "mean"),
        ("distilbert", "mean"),
    ],
)
def test_onnx_gives_pytorchs_logits_at_any_shape(make_classifier, minilm, exported, tmp_path, architecture, pooling):
    source, done = minilm, exported
    if (architecture, pooling) != ("minilm", "stock"):
        source = make_classifier(architecture, pooling)
        done = export_onnx(source, tmp_path / "onnx", int8=True)
    model = hfssl.from_pretrained(source).eval()
    session = onnxruntime.InferenceSession(done.folder / "model.onnx")
    assert {"input_ids", "attention_mask"} <= set(done.inputs)
    assert [entry.name for entry in session.get_inputs()] == done.inputs
    assert all(isinstance(size, str) for entry in session.get_inputs() for size in entry.shape)
    int8 = onnxruntime.InferenceSession(done.folder / "model_int8.onnx")
    moved = []
    for shape in SHAPES:
        batch = {name: value for name, value in random_batch(*shape, types=2).items() if name in done.inputs}
        with torch.inference_mode():
            expected = model(**batch).logits.numpy()
        feed = {name: value.numpy() for name, value in batch.items()}
        (found,) = session.run(["logits"], feed)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert np.ptp(expected, axis=-1).max() > 0.05  # logits that have something to be wrong about
        moved.append(np.abs(int8.run(["logits"], feed)[0] - expected).max() / np.abs(expected).max())
    assert 0 < max(moved) < 0.5  # another model, and still the same one
    kinds = Counter(node.op_type for node in onnx.load(done.folder / "model_int8.onnx").graph.node)
    assert kinds["MatMulInteger"] >= 8  # four matrices or more in each of two layers
    assert 0 <= done.difference <= 1e-4
    assert done.sizes == {name: (done.folder / name).stat().st_size for name in done.sizes}
    assert set(done.sizes) == {"model.onnx", "model_int8.onnx"}


def test_the_folder_is_complete_and_keeps_the_label_names(minilm, exported):
    done = exported
    assert {"model.onnx", "model_int8.onnx", "config.json", "tokenizer.json", "export.json"} <= files_in(done.folder)
    assert done.label_names == NAMES
    assert json.loads((done.folder / "export.json").read_text(encoding="utf-8"))["label_names"] == NAMES
    classifier = OnnxClassifier(done.folder)
    texts, pairs = ["a good movie", "what a dull and awful story"], ["who", "the plot is great fun , the actor is bad"]
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    model = AutoModelForSequenceClassification.from_pretrained(minilm).eval()
    for second in (None, pairs):
        with torch.inference_mode():
            probs = model(**tokenizer(texts, second, padding=True, return_tensors="pt")).logits.softmax(-1)
        for found, expected in zip(classifier(texts, second), probs.tolist(), strict=True):
            assert list(found) == NAMES
            assert list(found.values()) == pytest.approx(expected, abs=1e-4)
    assert classifier(texts)[0] != classifier(texts, pairs)[0]
    rows = tokenize_dataset(Dataset.from_dict({"text": texts}), tokenizer, 64)
    assert "token_type_ids" in classifier.inputs
    assert "token_type_ids" not in rows.column_names
    first = [[row[name] for name in NAMES] for row in classifier(texts)]
    np.testing.assert_allclose(softmax(classifier.predict_logits(rows), axis=-1), first, atol=1e-5)


def test_an_adapter_is_merged(make_classifier, tmp_path):
    adapter = make_classifier("minilm", lora=True)
    assert "adapter_config.json" in files_in(adapter)
    done = export_onnx(adapter)
    assert done.folder == adapter / "onnx"
    batch = random_batch(5, 12)
    with torch.inference_mode():
        expected = hfssl.from_pretrained(adapter).eval()(**batch).logits.numpy()
        base = load_classifier(adapter.parent / "backbone", NAMES, seed=0)(**batch).logits.numpy()
    found = OnnxClassifier(done.folder).logits({name: value.numpy() for name, value in batch.items()})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert np.abs(found - base).max() > 0.01
    assert done.label_names == NAMES


def test_the_cost_is_what_the_models_do_on_the_labeled_rows(minilm, tmp_path):
    """Counted once more by hand: plain transformers, and ONNX Runtime on all rows at once (int8 feels its batch)."""
    rows = [(make_text(i, list(CUES)[i % 3]), NAMES[(i // 5) % 3] if i % 4 else "") for i in range(80)]
    with open(tmp_path / "table.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("review", "kind"), *rows])
    done = export_onnx(
        minilm,
        tmp_path / "onnx",
        int8=True,
        data=tmp_path / "table.csv",
        text_column="review",
        label_column="kind",
    )
    texts, labels = zip(*[(text, NAMES.index(label)) for text, label in rows if label], strict=True)
    encoded = AutoTokenizer.from_pretrained(minilm)(list(texts), padding=True, return_tensors="pt")
    with torch.inference_mode():
        model = AutoModelForSequenceClassification.from_pretrained(minilm).eval()
        predicted = {"PyTorch": model(**encoded).logits.numpy().argmax(-1)}
    for name, file in (("ONNX", "model.onnx"), ("int8", "model_int8.onnx")):
        session = onnxruntime.InferenceSession(done.folder / file)
        feed = {entry: encoded[entry].numpy() for entry in done.inputs}
        predicted[name] = session.run(["logits"], feed)[0].argmax(-1)
    assert done.cost.rows == len(labels) == 60
    assert done.cost.table == str(tmp_path / "table.csv")
    assert done.cost.accuracy == {name: float(np.mean(found == labels)) for name, found in predicted.items()}
    assert 0 < done.cost.accuracy["PyTorch"] < 1
    assert done.cost.changed == {
        name: float(np.mean(predicted[name] != predicted["PyTorch"])) for name in ("ONNX", "int8")
    }
    assert done.cost.changed["ONNX"] == 0
    record = json.loads((done.folder / "export.json").read_text(encoding="utf-8"))
    assert record["cost"]["accuracy"] == done.cost.accuracy
    assert record["sizes"] == done.sizes


@pytest.mark.slow
def test_the_command_exports_a_run_and_prints_what_int8_costs(finished_run, tmp_path):
    words = ["export", str(finished_run), "--int8", "--output", str(tmp_path / "onnx")]
    done = subprocess.run(
        [sys.executable, "-m", "hfssl.cli.main", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    results = json.loads((finished_run / "results.json").read_text(encoding="utf-8"))
    kept = next(stage for stage in results["stages"] if stage["name"] == results["final_stage"])["metrics"]["test"]
    count = sum(results["data"]["counts"]["test"].values())
    assert f"Measured on {count} labeled rows of {finished_run / 'splits'} (test)" in done.stdout
    lines = {words[0]: words[1:] for line in done.stdout.splitlines() if (words := line.split())}
    assert lines["PyTorch"] == [f"{100 * kept['accuracy']:.1f}", "-"]
    assert lines["ONNX"] == [f"{100 * kept['accuracy']:.1f}", "0.0"]
    assert len(lines["int8"]) == 2
    for name in ("model.onnx", "model_int8.onnx"):
        assert f"{(tmp_path / 'onnx' / name).stat().st_size:,} bytes  {tmp_path / 'onnx' / name}" in done.stdout
    assert OnnxClassifier(tmp_path / "onnx", "model_int8.onnx").label_names == results["data"]["label_names"]


def test_without_labeled_rows_the_command_says_so_and_an_export_is_replaced(minilm, tmp_path, capsys):
    words = ["export", "--folder", str(minilm), "--output", str(tmp_path / "onnx")]
    assert main([*words, "--int8"]) == 0
    shown = capsys.readouterr().out
    assert "was not measured: there are no labeled rows. Give a table with --data" in shown
    assert "accuracy  labels changed" not in shown
    assert main(words) == 0
    assert "not measured" not in capsys.readouterr().out
    assert "model_int8.onnx" not in files_in(tmp_path / "onnx")


def test_what_is_no_model_is_one_sentence(tmp_path, capsys):
    assert main(["export", str(tmp_path / "none")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("hfssl: error: Expected a finished run of hfssl fit, a model or an adapter in")
    assert len(message.splitlines()) == 1
    (tmp_path / "splits").mkdir()
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(ModelError, match="finish it with hfssl fit --resume"):
        export_onnx(tmp_path)
    with pytest.raises(ModelError, match=r"model\.onnx and config\.json"):
        OnnxClassifier(tmp_path)


def test_a_folder_of_something_else_is_never_replaced(minilm, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ModelError, match="holds something else"):
        export_onnx(minilm, tmp_path)
    with pytest.raises(ModelError, match="holds something else"):
        export_onnx(minilm, minilm)
    assert files_in(tmp_path) == {"thesis.txt"}
    assert "model.safetensors" in files_in(minilm)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_is_one_sentence(minilm, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # what the import system takes for "not there"
    with pytest.raises(ConfigurationError, match=rf'{package} cannot be imported.*pip install "hfssl\[onnx\]"'):
        export_onnx(minilm, tmp_path / "onnx")
    assert files_in(tmp_path) == set()


def test_logits_that_differ_leave_the_last_export_as_it_was(minilm, exported, tmp_path, monkeypatch):
    shutil.copytree(exported.folder, tmp_path / "onnx")
    before = (tmp_path / "onnx" / "model.onnx").read_bytes()
    model = hfssl.from_pretrained(minilm)
    with torch.no_grad():
        model.classifier.weight.mul_(1e6)
    monkeypatch.setattr("hfssl.deploy.onnx_export.TOLERANCE", 1e-12)  # finer than float32
    save_checkpoint(model, AutoTokenizer.from_pretrained(minilm), tmp_path / "huge")
    with pytest.raises(ModelError, match="to give PyTorch's logits to 1e-12, but on a batch of"):
        export_onnx(tmp_path / "huge", tmp_path / "onnx")
    assert (tmp_path / "onnx" / "model.onnx").read_bytes() == before
    assert files_in(tmp_path) == {"onnx", "huge"}


def test_an_architecture_that_torch_cannot_export_is_one_sentence(make_classifier, tmp_path, capfd):
    with pytest.raises(ModelError, match="torch can export to ONNX, but not 'longformer'") as error:
        export_onnx(make_classifier("longformer"), tmp_path / "onnx")
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 400
    assert "def forward" not in capfd.readouterr().err  # torch prints its graph
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"text": "who", "label": ""}], "none of its 1 rows has a label"),
        ([{"text": "who", "label": "spma"}], "Did you mean 'spam'"),
        ([{"text": "who", "kind": "spam"}], "expected a column 'label'"),
    ],
)
def test_bad_tables_are_refused_before_anything_is_exported(minilm, tmp_path, rows, expected):
    table = write_csv(tmp_path / "table.csv", rows)
    with pytest.raises(DataError, match=expected):
        export_onnx(minilm, tmp_path / "onnx", data=table)
    assert files_in(tmp_path) == {"table.csv"}


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        ([[100.0, -50.0]], [[100.0, -50.005]], 0.005 / 100),  # within 1e-4 of the logits' size, not of 1
        ([[0.1, 0.2]], [[0.1, 0.2003]], 0.0003),  # of small logits the tolerance is absolute
        ([[1.0, math.nan]], [[1.0, 2.0]], math.nan),
    ],
)
def test_the_difference_is_relative_to_the_size_of_the_logits(found, expected, difference):
    value = relative_difference(np.array(found), np.array(expected))
    assert value == pytest.approx(difference, rel=1e-6, nan_ok=True)
