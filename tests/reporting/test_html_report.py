"""The report: its content, texts of the data that cannot break or leave it, and messages for missing evidence."""

from __future__ import annotations

import base64
import copy
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from hfssl.reporting.html_report import build_report
from hfssl.reporting.results import gains_row_by_row
from tests.helpers.run_results import make_results

VOID_TAGS = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Collects tags, attributes, the text outside <style>, and complains about tags that do not nest."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def built(tmp_path, results, evidence) -> str:
    build_report(results, evidence, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_report_shows_every_part_that_is_owed(tmp_path):
    page = Page(built(tmp_path, *make_results(["fresh", "rotten", "plot"])))
    assert "The unlabeled rows helped by 6.3 points." in page.text
    assert "It helped on the proxy." in page.text
    # Closing table: accuracy .8125 and .875, macro-F1 .75, ECE .0625, seconds 3.21 and 125.
    assert "Labels only 81.2 75.0 6.2 3.2 s" in page.text.replace("final", "")
    assert "87.5 75.0 6.2 2 min 5 s" in page.text
    assert "+6.2 points" in page.text
    assert "interval −1.0 to +13.5" in page.text
    assert "1,234" in page.text
    assert "temperature of 1.25" in page.text
    assert "learning_rate" in page.text
    assert "lora.r" in page.text
    # Stages; labeled and test rows; losses of two stages; rounds; before and after the temperature; confusions.
    assert page.tags.count("img") == 1 + 2 + 2 + 2 + 2 + 1
    assert page.text.count("3 rows were cut.") == 1  # the same warning from two sources is said once
    assert "The pool is small." in page.text
    assert "(first round: 75.0%)" in page.text


def test_mistakes_are_the_wrong_ones_surest_first(tmp_path):
    text = Page(built(tmp_path, *make_results(["fresh", "rotten"]))).text
    assert text.index("surely wrong labeled fresh , predicted rotten with probability 99.0%") < text.index(
        "less surely wrong labeled rotten , predicted fresh with probability 60.0%"
    )
    assert "99.5%" not in text


def test_report_refers_to_nothing_outside_itself(tmp_path):
    html = built(tmp_path, *make_results(["fresh", "rotten"]))
    page = Page(html)
    assert {"script", "link", "iframe", "object", "form", "base"}.isdisjoint(page.tags)
    for tag, name, value in page.attributes:
        assert name not in ("href", "srcset", "action", "background")
        assert not name.startswith("on")
        if name == "src":
            assert value.startswith("data:image/png;base64,"), tag
    style = re.search(r"<style>(.*)</style>", html, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html  # a browser would block whatever this test overlooks


def test_pictures_are_pictures_with_text_for_those_who_cannot_see_them(tmp_path):
    page = Page(built(tmp_path, *make_results(["fresh", "rotten"])))
    images = [value for tag, name, value in page.attributes if tag == "img" and name == "src"]
    for uri in images:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))
        assert pixels.std() > 0
    alts = [value for tag, name, value in page.attributes if name == "alt"]
    assert len(alts) == len(set(alts)) == len(images)
    assert (
        "Dots, accuracy, %: Labels only 81.2 (interval 69.6 to 89.1); Self-training, the final stage, 87.5 (interval "
        "76.8 to 93.7)."
    ) in alts
    assert "Bars, rows per class in the part labeled: fresh 16, rotten 16." in alts


def test_rows_of_tables_have_headers_and_tables_that_scroll_have_names(tmp_path):
    page = Page(built(tmp_path, *make_results(["fresh", "rotten"])))
    assert page.tags.count("tr") == sum(
        (tag, name, value) in [("th", "scope", "row"), ("tr", "class", "groups")]
        for tag, name, value in page.attributes
    ) + page.tags.count("thead")
    names = [value for _, name, value in page.attributes if name == "aria-label"]
    assert len(names) == len(set(names)) == page.tags.count("table")


NASTY = [
    "<script>alert(1)</script>",
    "{{ 7*7 }}",
    "\"quoted\" & 'single'",
    "$\\frac{1}{$",
    "$x^2$",
    "</td></table><b>out",
    "a|b`c*d_e[f](g)#h",
    "{% raw %}\\textbf{%d %s}",
    "_leading underscore",
    "   ",
    "日本語の名前",
    "line\nbreak\ttab\x00\u202enull and bidi",
    "a very long name indeed, one that goes on and on",
    "a very long name indeed, one that goes on elsewhere",
]


def test_label_names_and_texts_are_only_text(tmp_path, recwarn):
    results, evidence = make_results(NASTY, rows=200)
    evidence["examples"] = [{"text": t, "label": 0, "predicted": 1, "probability": 0.9} for t in NASTY[:8]]
    evidence["warnings"] = list(NASTY)
    results["verdict"]["sentence"], results["verdict"]["reasons"] = NASTY[0], [NASTY[1]]
    results["command"] = ["hfssl", "fit", "--train", NASTY[0]]
    html = built(tmp_path, results, evidence)
    page = Page(html)  # raises where a name closed a tag that it did not open
    assert "script" not in page.tags
    assert "<script" not in html
    assert "\x00" not in html
    assert "{{ 7*7 }}" in page.text
    assert "49" not in [word for text in page.texts for word in text.split()]
    for name in NASTY[:9]:
        assert " ".join(name.split()) in page.text
    assert not [w for w in recwarn if "Glyph" in str(w.message)]  # nothing was drawn that the font lacks


def test_lone_surrogates_do_not_stop_the_report(tmp_path):
    results, evidence = make_results(["fresh", "rotten"])
    evidence["examples"][0]["text"] = "broken \ud800 text"
    assert "broken ? text" in built(tmp_path, results, evidence)


@pytest.mark.parametrize("classes", [2, 13, 31, 150])
def test_any_number_of_classes(tmp_path, classes):
    names = [f"class {i}" for i in range(classes)]
    results, evidence = make_results(names, rows=max(60, 4 * classes))
    page = Page(built(tmp_path, results, evidence))
    assert page.tags.count("img") == 10
    assert ("All 150 classes" in page.text) == (classes == 150)


def test_missing_evidence_is_said_and_nothing_is_drawn(tmp_path):
    results, _ = make_results(["fresh", "rotten"])
    page = Page(built(tmp_path, results, {}))
    for reason in (
        "No stage has recorded its loss twice or more.",
        "No self-training rounds were run.",
        "There are no predictions of the final model on held-out labels.",
        "There are no mistakes on held-out labels to show.",
    ):
        assert reason in page.text
    assert page.tags.count("img") == 3  # accuracy by stage and class counts need no evidence


def test_a_run_without_any_held_out_label_still_has_its_report(tmp_path):
    results, _ = make_results(["fresh", "rotten"])
    for stage in results["stages"]:
        stage["metrics"] = {"validation": None, "test": None}
    results["data"]["counts"] = {"labeled": {"fresh": 2, "rotten": 2}, "unlabeled": {"(unlabeled)": 9}}
    results["verdict"] |= {"use_unlabeled": False, "gain": None, "interval": None, "reasons": []}
    results["temperature"] = None
    evidence = {"curves": {}, "predictions": {}, "rounds": [], "examples": [], "warnings": []}
    text = Page(built(tmp_path, results, evidence)).text
    assert "No labels were held out" in text
    assert "Gain" not in text
    assert "temperature" not in text


def test_losses_that_are_not_finite_are_counted_and_not_drawn(tmp_path):
    results, evidence = make_results(["fresh", "rotten"])
    evidence["curves"] = {"labels_only": [{"step": 1, "loss": 1.0}, {"step": 2, "loss": float("nan")}]}
    assert "1 recorded losses were not finite" in Page(built(tmp_path, results, evidence)).text


def test_inputs_are_left_as_they_were(tmp_path):
    results, evidence = make_results(["fresh", "rotten"])
    kept = copy.deepcopy((results, evidence))
    built(tmp_path, results, evidence)
    assert (results, evidence) == kept


def test_the_gain_to_be_expected_stands_at_the_top_where_it_is_known(tmp_path):
    results, evidence = make_results(["fresh", "rotten", "plot"])
    results["verdict"] |= {"expected_gain": 0.021, "expected_interval": [-0.012, 0.05]}
    page = Page(built(tmp_path, results, evidence))
    assert "+2.1 points" in page.text
    assert "to be expected; interval −1.2 to +5.0" in page.text
    assert "+6.2 points" not in page.text


GAINS = {
    "self_training": {"gain": 0.056, "interval": [0.0412, 0.0704]},
    "refit": {"gain": -0.01, "interval": [-0.0249, 0.005]},
}


def test_gains_on_the_test_part_are_counted_row_by_row(tmp_path):
    sentence = (
        "Row by row on the test part, over labels only: Self-training +5.6 points (95% interval +4.1 to +7.0), "
        "Refit on all labels −1.0 points (95% interval −2.5 to +0.5)."
    )
    assert gains_row_by_row({"test_gains": GAINS}) == sentence
    results, evidence = make_results(["fresh", "rotten", "plot"])
    page = Page(built(tmp_path, results | {"test_gains": GAINS}, evidence))
    assert sentence in page.text
    assert "+5.6 points on the test part; interval +4.1 to +7.0" in " ".join(page.text.split())


@pytest.mark.parametrize("gains", [{}, {"test_gains": {}}])
def test_without_a_test_part_the_report_points_to_the_verdict(tmp_path, gains):
    results, evidence = make_results(["fresh", "rotten", "plot"])
    page = Page(built(tmp_path, results | gains, evidence))
    assert "The verdict above compares them row by row." in page.text
    assert gains_row_by_row(gains) is None
