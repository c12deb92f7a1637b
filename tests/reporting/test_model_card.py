"""The model card: valid metadata, a snippet that runs, limits, and user text that stays text."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from markdown_it import MarkdownIt

from hfssl.citations import GUO_2017
from hfssl.reporting.markdown import escape_markdown
from hfssl.reporting.model_card import build_model_card

CITATION = "@inproceedings{a,\n  title = {Self-training},\n  year = {2020}\n}"
METRICS = {"accuracy": 0.8, "macro_f1": 0.7, "nll": 0.6, "ece": 0.1}


def make_results(**changes):
    results = {
        "schema_version": 2,
        "seed": 3,
        "command": "hfssl fit --train /home/alice/secret/reviews.csv --text-column text",
        "versions": {"hfssl": "0.1.0", "torch": "2.13.0"},
        "hardware": {"machine": "x86_64", "gpu": None},
        "data": {
            "counts": {
                "labeled": {"fun": 16, "dull": 16},
                "unlabeled": {"(unlabeled)": 3000},
                "validation": {"fun": 4, "dull": 4},
                "test": {"fun": 50, "dull": 50},
            },
            "label_names": ["fun", "dull"],
            "warnings": ["2 rows were cut."],
            "fingerprints": {"labeled": {"rows": 32, "fingerprint": "0" * 32}},
        },
        "stages": [
            {"name": "labels_only", "metrics": {"validation": METRICS, "test": METRICS}, "seconds": 2.0, "config": {}},
            {
                "name": "self_training",
                "metrics": {"validation": METRICS, "test": METRICS | {"accuracy": 0.9}},
                "seconds": 90.0,
                "config": {},
            },
        ],
        "verdict": {
            "use_unlabeled": True,
            "gain": 0.1,
            "interval": [-0.02, 0.2],
            "reasons": ["Right on 9 of 10."],
            "sentence": "The unlabeled data helped.",
        },
        "selected_stage": "self_training",
        "final_stage": "self_training",
        "temperature": 1.5,
        "final_metrics": {"validation": METRICS, "test": METRICS | {"accuracy": 0.9, "ece": 0.03}},
    }
    return results | changes


def make_card(results=None, **changes):
    settings = {
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
        "license": "apache-2.0",
        "dataset_name": "reviews.csv",
        "label_names": ["fun", "dull"],
        "stages_config": {
            "labels_only": {"supervised": {"learning_rate": 5e-5}},
            "self_training": {"self_training": {"rounds": 3, "citation": CITATION, "paper": "Mukherjee & Awadallah"}},
        },
        "uses_adapter": False,
        "pooling": "stock",
    }
    return build_model_card(results or make_results(), **settings | changes)


def code_blocks(card: str, language: str) -> list[str]:
    tokens = MarkdownIt("commonmark").parse(ModelCard(card).text)
    return [token.content for token in tokens if token.type == "fence" and token.info == language]


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments):
        raise AssertionError(f"tried to connect: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_metadata_is_what_the_hub_reads():
    card = ModelCard(make_card())
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-classification"
    assert {"hfssl", "semi-supervised-learning", "self-training"} <= set(card.data.tags)
    assert "lora" not in card.data.tags
    # What ModelCardData writes from what it read is what was written: nothing was lost on the way.
    header = yaml.safe_load(make_card().split("---\n")[1])
    assert card.data.to_dict() == header


@pytest.mark.usefixtures("no_network")
def test_model_index_holds_the_saved_models_test_results():
    name, found = model_index_to_eval_results(ModelCard(make_card()).data.to_dict()["model-index"])
    assert name == "sentence-transformers-all-MiniLM-L6-v2-reviews"
    # The temperature changed the calibration error (.1 -> .03), and the saved model has the temperature inside.
    assert {r.metric_type: r.metric_value for r in found} == {"accuracy": 0.9, "f1": 0.7, "nll": 0.6, "ece": 0.03}
    assert {(r.dataset_name, r.dataset_type, r.dataset_split) for r in found} == {("reviews.csv", "reviews", "test")}


def test_card_says_what_was_done():
    text = ModelCard(make_card()).text
    for owed in (
        "**32 labels**",
        "3,000 unlabeled texts",
        "On 100 test rows: **accuracy 90.0%**, macro-F1 70.0%, expected calibration error 3.0%.",
        "temperature of 1.5",
        "Seed: 3.",
        "One run, with seed 3",
        f"| labeled | 32 | `{'0' * 32}` |",
        "8 for validation",
        "The unlabeled data helped.",
        "- Right on 9 of 10.",
        "+10.0 points (interval −2.0 to +20.0)",
        "| Labels only | 80.0 | 71.1 to 86.7 | 70.0 | 10.0 | 2.0 s |",
        "| Self-training (final) | 90.0 | 82.6 to 94.5 | 70.0 | 10.0 | 1 min 30 s |",
        "| This model, calibrated | 90.0 | 82.6 to 94.5 | 70.0 | 3.0 | |",
        "torch 2.13.0",
        "2 rows were cut.",
        "## Intended use",
        "## Limits",
        "The interval of the gain from unlabeled data includes zero.",
        "Mukherjee &amp; Awadallah",
    ):
        assert owed in text, owed
    assert code_blocks(make_card(), "bibtex") == [CITATION + "\n", GUO_2017 + "\n"]
    assert "emission" not in make_card()  # nobody has measured them
    # 90 of 100 right: Wilson's interval is (.9 + .019207 -+ 1.96 sqrt(.0009 + .00009604)) / 1.038415 = .826, .945.
    assert "82.6% to 94.5%" in text


def test_paths_of_the_author_stay_private():
    config = {"pretext": {"backbone": {"folder": "/home/alice/models/minilm"}}}
    card = make_card(base_model="/home/alice/models/minilm", stages_config=config)
    assert "alice" not in card
    assert "local copy of minilm" in card
    assert '"folder": "minilm"' in card
    assert "--train reviews.csv" in code_blocks(card, "bash")[0]
    assert ModelCard(card).data.base_model is None


def test_the_same_citation_is_given_once():
    config = {"citation": CITATION}
    stages = {"labels_only": {"contrastive": config, "supervised": config}, "self_training": config}
    assert code_blocks(make_card(stages_config=stages), "bibtex").count(CITATION + "\n") == 1


def test_whatever_was_used_is_cited():
    stages = {"self_training": {"self_training": {"distribution_alignment": "estimated", "r_drop_alpha": 0.0}}}
    cited = "\n".join(code_blocks(make_card(stages_config=stages, uses_adapter=True), "bibtex"))
    assert re.findall(r"@\w+{(\w+),", cited) == ["saerens2002adjusting", "hu2022lora", "guo2017calibration"]


def test_the_license_of_a_base_model_is_taken_from_its_own_card(tmp_path):
    assert "- Base model: not known here" in make_card(base_model=str(tmp_path))
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    assert "- Base model: mit, according to its card." in make_card(base_model=str(tmp_path))
    (tmp_path / "README.md").write_text("---\n: : [\n---\n", encoding="utf-8")
    assert "- Base model: not known here" in make_card(base_model=str(tmp_path))


def test_labels_only_kept_says_that_the_pool_was_tried():
    verdict = make_results()["verdict"] | {"use_unlabeled": False, "sentence": "It did not help."}
    card = make_card(
        make_results(selected_stage="labels_only", final_stage="labels_only", verdict=verdict, final_metrics={})
    )
    assert "The 3,000 unlabeled texts were tried and not used in this model." in card
    assert "Labels only (final)" in card
    assert ModelCard(card).data.eval_results[0].metric_value == 0.8


def test_a_run_without_held_out_labels_admits_it():
    results = make_results(temperature=None, final_metrics={"validation": None, "test": None})
    for stage in results["stages"]:
        stage["metrics"] = {"validation": None, "test": None}
    results["verdict"] |= {"gain": None, "interval": None, "reasons": []}
    card = make_card(results, license=None, stages_config={})
    assert "No labels were held out" in card
    assert "not calibrated" in card
    assert "before calibration" not in card
    assert "not stated; state yours" in card
    assert "Citations" not in card
    data = ModelCard(card).data
    assert data.eval_results is None
    assert data.license is None


def test_gains_on_the_test_part_are_counted_row_by_row():
    gains = {"self_training": {"gain": 0.056, "interval": [0.0412, 0.0704]}}
    sentence = "over labels only: Self-training +5.6 points (95% interval +4.1 to +7.0)."
    assert sentence in make_card(make_results(test_gains=gains))
    assert "Row by row" not in make_card(make_results(test_gains={}))


def test_validation_numbers_come_with_their_caveat():
    results = make_results()
    for stage in results["stages"]:
        stage["metrics"]["test"] = None
    results["final_metrics"]["test"] = None
    card = make_card(results)
    assert "somewhat too good" in card
    assert {r.dataset_split for r in ModelCard(card).data.eval_results} == {"validation"}


def test_numbers_of_the_labels_in_folds_come_with_their_caveat():
    """Also where one of the stages has no models of the folds."""
    results = make_results()
    for stage in results["stages"]:
        stage["metrics"] = {"validation": None, "test": None}
    results["stages"][1]["metrics"]["out_of_fold"] = METRICS
    results["data"]["counts"] |= {"test": {}, "validation": {}, "out_of_fold": {"fun": 16, "dull": 15}}
    results["final_metrics"] = {"validation": None, "test": None, "out_of_fold": METRICS | {"ece": 0.03}}
    card = make_card(results)
    assert "On 31 out-of-fold rows: " in card
    assert "| stage | out-of-fold accuracy" in card
    text = " ".join(card.split())
    assert "those of models that were trained in the same way without a part of the labels" in text
    assert "somewhat too good" not in text
    assert "its accuracy is unknown" not in text
    assert {r.dataset_split for r in ModelCard(card).data.eval_results} == {"out_of_fold"}


NASTY = [
    "<script>alert(1)</script>",
    "a | b",
    "*bold* _it_ `code` ~~gone~~",
    "[link](javascript:alert(1))",
    "![image](http://example.org/x.png)",
    "http://example.org www.example.org a@example.org",
    "# heading",
    "- item",
    "12. item",
    "```\nfence\n```",
    "$x$ \\(y\\)",
    "{{ 7*7 }} {% raw %}",
    "---\nlicense: mit\n---",
    "&lt; &amp;",
    "back\\slash",
    "'quoted': \"text\"",
    "日本語",
]


@pytest.mark.parametrize("text", NASTY)
def test_escaped_text_renders_as_itself_and_as_nothing_else(text):
    shown = " ".join(text.split())
    markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for document in (escape_markdown(text), f"- {escape_markdown(text)}", f"# {escape_markdown(text)}"):
        tokens = markdown.parse(document)
        inline = [token for token in tokens if token.type == "inline"]
        assert len(inline) == 1
        assert {child.type for child in inline[0].children} <= {"text", "text_special"}
        assert "".join(child.content for child in inline[0].children) == shown
        assert len(tokens) == {"-": 7, "#": 3}.get(document[0] if document[1] == " " else "", 3)


@pytest.mark.parametrize("text", NASTY)
def test_nasty_names_leave_metadata_tables_and_code_whole(text):
    results = make_results(command=["hfssl", "fit", "--train", text])
    results["verdict"] |= {"sentence": text, "reasons": [text]}
    results["data"]["warnings"] = [text]
    card = make_card(
        results,
        dataset_name=text,
        label_names=[text, "dull"],
        stages_config={"labels_only": {"supervised": {"note": text, "citation": text, "paper": text}}},
        uses_adapter=True,
    )
    parsed = ModelCard(card)
    assert parsed.data.license == "apache-2.0"
    assert parsed.data.eval_results[0].dataset_name == " ".join(text.split())
    assert "lora" in parsed.data.tags
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(parsed.text)
    assert [t.content for t in tokens if t.type == "html_block" and "details" not in t.content] == []
    assert sum(t.type == "tr_open" for t in tokens) == 6  # header, two stages, the model here; header and a part
    assert [t.info for t in tokens if t.type == "fence"] == ["python", "bash", "json", *["bibtex"] * 3]
    headings = [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]
    assert len(headings) == 8
    assert not any(child.type in ("image", "link_open") for t in tokens for child in t.children or [])


def test_many_labels_are_named_up_to_a_point():
    card = make_card(label_names=[f"intent-{i}" for i in range(150)])
    assert "intent-29, and 120 more" in card
    assert "intent-30" not in card


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory, tiny_tokenizer):
    """A run's folder with `model/`: a tiny BERT with our label names."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("run")
    config = BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        id2label={0: "fun", 1: "dull"},
        label2id={"fun": 0, "dull": 1},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    return folder


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("relative", [True, False])
def test_the_snippet_runs_on_the_folder(saved_model, monkeypatch, capsys, relative):
    card = make_card() if relative else make_card(model_path=str(saved_model / "model"))
    if relative:
        monkeypatch.chdir(saved_model)
    (snippet,) = code_blocks(card, "python")
    exec(compile(snippet, "card", "exec"), {})
    printed = capsys.readouterr().out
    assert set(re.findall(r"'label': '(\w+)'", printed)) == {"fun", "dull"}


def test_the_snippet_runs_in_a_process_of_its_own(saved_model):
    (snippet,) = code_blocks(make_card(), "python")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", snippet]
    done = subprocess.run(command, cwd=saved_model, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"'label': '(\w+)'", done.stdout)) == {"fun", "dull"}


def test_mean_pooling_says_that_hfssl_is_needed():
    card = make_card(pooling="mean", model_path='odd "name"')
    (snippet,) = code_blocks(card, "python")
    compile(snippet, "card", "exec")
    assert "loading it needs hfssl" in card
    assert "pipeline(" not in card


def test_the_adapter_is_mentioned_only_where_there_is_one():
    assert "adapter" not in make_card(uses_adapter=False)
    assert "`adapter`" in make_card(uses_adapter=True)
