"""The pages in docs/: their Python runs, their commands are real, in the order in which they stand."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from fit_tiny import TINY
from hub_server import HubServer
from test_fit import CUES, make_text
from transformers import AutoModelForSequenceClassification

import hfssl.pipeline.presets
from hfssl.cli.main import main
from hfssl.cli.recipe import parse_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
IDS = torch.arange(5, 13).view(2, 4)

# Of huggingface_hub's own upload over plain HTTP, which the real Hub has replaced by Xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


def text_of(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, code) of each fenced block."""
    return re.findall(r"```(\w+)\n(.*?)```", text_of(page), re.DOTALL)


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_backbone):
    """A working folder with `reviews.csv` and `new.csv`, and short presets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(hfssl.pipeline.presets.PRESETS, "standard", TINY)
    names = list(CUES)
    rows = [(make_text(i, names[i % 3]), names[i % 3] if i < 36 else "") for i in range(90)]
    for name in ("reviews.csv", "new.csv"):
        with open(name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "sentiment"), *rows])
    return tmp_path


def run(page: str, backbone: Path, server: HubServer | None = None) -> dict:
    """Runs the page from its first line to its last; returns the names that its Python has left."""
    if server is not None:
        server.tokens["hf_writer"] = ("me", "write")
    left: dict = {}
    for language, code in blocks(page):
        if language == "python":
            exec(compile(code.replace(MINILM, str(backbone)), f"docs/{page}.md", "exec"), left)
            continue
        for line in code.splitlines():
            if line.startswith("hfssl "):
                more = ["--backbone", str(backbone), "--quiet"] if line.startswith("hfssl fit ") else []
                assert main([*shlex.split(line)[1:], *more]) == 0, line
    return left


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_from_a_csv_to_the_hub(place, hub, tiny_backbone, capsys):
    left = run("csv_to_hub", tiny_backbone, hub)
    assert set(left["model"].config.id2label.values()) == set(CUES)
    assert torch.equal(logits(left["model"]), logits(hfssl.from_pretrained(place / "runs/reviews/model")))
    assert (place / "predictions.csv").is_file()
    assert "Nothing was sent" in capsys.readouterr().out
    card = hub.repos["me/reviews"].at("main").files["README.md"].content.decode()
    assert "license: apache-2.0" in card


def test_the_adapter_with_plain_peft(place, tiny_backbone):
    fit = next(line for _, code in blocks("csv_to_hub") for line in code.splitlines() if line.startswith("hfssl fit"))
    assert main([*shlex.split(fit)[1:], "--backbone", str(tiny_backbone), "--quiet"]) == 0
    left = run("plain_peft", tiny_backbone)
    expected = logits(hfssl.from_pretrained(place / "runs/reviews/adapter"))
    plain = AutoModelForSequenceClassification.from_pretrained("merged")
    for model in (plain, left["model"]):
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
        assert set(model.config.id2label.values()) == set(CUES)


def test_a_mean_pooled_adapter_is_refused_by_plain_peft(tiny_backbone, tmp_path):
    """As docs/plain_peft.md says: an error, and never silently other logits."""
    from peft import PeftModel

    from hfssl.models.adapters import add_adapter, build_lora_config, save_adapter
    from hfssl.models.loading import load_classifier

    model = load_classifier(tiny_backbone, ["a", "b"], pooling="mean", seed=0)
    save_adapter(add_adapter(model, build_lora_config(model), seed=0), tmp_path / "adapter", ["a", "b"])
    assert json.loads((tmp_path / "adapter/hfssl_labels.json").read_text())["pooling"] == "mean"
    base = AutoModelForSequenceClassification.from_pretrained(tiny_backbone, num_labels=2)
    with pytest.raises(ValueError, match="[Tt]arget modules"):
        PeftModel.from_pretrained(base, tmp_path / "adapter")


def test_several_gpus(place, hub, tiny_backbone, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    left = run("several_gpus", tiny_backbone, hub)
    assert left["names"] == ["dull", "fun"]
    loaded = hfssl.from_pretrained("me/mine")
    assert loaded.config.id2label == {0: "dull", 1: "fun"}
    card = hub.repos["me/mine"].at("main").files["README.md"].content.decode()
    assert "license: apache-2.0" in card


def test_every_launch_in_the_docs_parses(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = [line for page in PAGES for _, code in blocks(page) for line in code.splitlines()]
    launches = [shlex.split(line) for line in lines if "recipes/train.py" in line]
    assert len(launches) == 5
    for words in launches:
        start = words.index("recipes/train.py")
        assert parse_recipe(words[start + 1 :]).method
        for name in words[:start]:
            assert not name.endswith(".yaml") or Path(name).is_file(), name
    named = {name for words in launches for name in words if "accelerate/" in name}
    assert named == {f"recipes/accelerate/{path.name}" for path in (ROOT / "recipes/accelerate").glob("*.yaml")}


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_linked_and_link_to_what_is_there(page):
    assert f"docs/{page}.md" in (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text_of(page)) if "://" not in link]
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
