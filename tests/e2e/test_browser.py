"""The report and the demo page in a browser: no console errors, no network requests, data as plain text.

Both are looked at as a telephone and a desktop show them; one page load serves as many checks as it can.
"""

from __future__ import annotations

import csv
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("selenium", reason="needs selenium (the extra `dev`)")

import hfssl.pipeline.presets
from hfssl.pipeline.fit import fit
from hfssl.reporting.good_enough import answer_sentence
from hfssl.reporting.results import read_results
from tests.helpers.browser import PATIENCE, Browser, started_browser
from tests.helpers.fit_tiny import TINY
from tests.helpers.pages import DESKTOP, PHONE, inaccessible, overflowing, set_width
from tests.helpers.texts import WORDS

pytestmark = pytest.mark.browser

SCRIPT = "<script>window.pwned=1</script>"
HOSTILE = f"{SCRIPT} ${{window.pwned=2}} {{{{7*7}}}} <img src=x onerror=window.pwned=3>"
CUES = {"good": ["great", "fun", "love", "joy"], SCRIPT: ["awful", "dull", "hate", "fear"]}
FIGURES = 10
PANEL = 360  # pixels
# Runs the command with an alarm on every connection and every name that Python asks the network for.
GUARDED = """
import sys

def alarm(event, args):
    if event == "socket.getaddrinfo" and args[0] not in (None, "127.0.0.1"):
        print("OUTSIDE", event, args, file=sys.stderr)
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] != "127.0.0.1":
        print("OUTSIDE", event, args, file=sys.stderr)

sys.addaudithook(alarm)
from hfssl.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_backbone) -> Path:
    """A run on texts, and with a label, that would be scripts if they were not escaped."""
    folder = tmp_path_factory.mktemp("run")
    names = list(CUES)
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(160):
            words = [WORDS[(7 * i + 11 * j + i // 9) % len(WORDS)] for j in range(5)]
            cue = CUES[names[i % 2]][i // 2 % 4]
            writer.writerow([f"{cue} {' '.join(words)} {SCRIPT}", names[i % 2]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(hfssl.pipeline.presets.PRESETS, "quick", TINY)
        fit(
            train=str(folder / "table.csv"), backbone=str(tiny_backbone), output_dir=str(folder / "run"),
            preset="quick", labels_per_class=10, max_length=48, pretext=False, rounds=1, quiet=True,
        )  # fmt: skip
    return folder / "run"


@pytest.fixture
def page(run, tmp_path) -> Iterator[tuple[str, subprocess.Popen, Path]]:
    """The address of the demo page, the process that serves it, and its folder for temporary files."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with served(run, scratch) as process:
        yield address_of(process), process, scratch


def in_both_widths(browser: Browser) -> list[str]:
    """What does not fit, or cannot be read or reached, on the open page."""
    found = []
    for width in (PHONE, DESKTOP):
        set_width(browser, width)
        found += [f"{width}: {fault}" for fault in overflowing(browser, width)]
        found += [f"{width}: {fault}" for fault in inaccessible(browser)]
    return found


def status(url: str, path: str, body: bytes | None = None, **headers: str) -> int:
    """Status of the answer to one request, a POST where it has a body."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    try:
        connection.request("POST" if body else "GET", path, headers=headers)
        if body:
            connection.send(body)
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused by its headers; the rest is not taken
    try:
        return connection.getresponse().status
    finally:
        connection.close()


@contextmanager
def served(folder: Path, scratch: Path | None = None) -> Iterator[subprocess.Popen]:
    """Runs `hfssl demo` on a free port, and ends it however the test ends; temporary files go to `scratch`."""
    process = subprocess.Popen(
        [sys.executable, "-c", GUARDED, "demo", str(folder), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Without conftest.py's gate against deprecated calls: Gradio makes some of pandas with every answer. What is
        # ours on the page passes the gate in test_explain.py and test_demo.py.
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
        | ({"TMPDIR": str(scratch)} if scratch else {}),
        cwd=scratch,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def address_of(process: subprocess.Popen) -> str:
    line = process.stdout.readline()
    assert line.startswith("Page:"), process.stderr.read()
    return line.split()[1]


def colors(browser: Browser, element) -> int:
    return len(browser.picture(element).getcolors(maxcolors=2**24))


def test_the_browser_sees_what_the_other_tests_say_is_not_there(browser, tmp_path):
    (tmp_path / "bad.html").write_text(
        "<title>bad</title><p>words</p><img src='http://127.0.0.1:9/x.png'><div style='width:50px;height:50px'></div>"
        "<script>window.pwned=1; console.error('an error of mine')</script>"
    )
    browser.open((tmp_path / "bad.html").as_uri())
    browser.wait(lambda: len(browser.errors) >= 2)  # the error, and the image that nobody sends
    assert browser.requests == [(tmp_path / "bad.html").as_uri(), "http://127.0.0.1:9/x.png"]
    assert any("an error of mine" in error for error in browser.errors)
    assert browser.run("return window.pwned") == 1
    assert colors(browser, browser.one("div")) == 1
    browser.run(
        'document.body.innerHTML = \'<div style="overflow: auto; width: 90px"><p style="width: 200px">hidden</p></div>'
        '<p class=wide style="width: 1300px; color: #999">words</p><img src=x.png><table><tr><td>1</td></tr></table>\''
    )
    faults = in_both_widths(browser)
    for width in (PHONE, DESKTOP):
        of_width = [fault for fault in faults if fault.startswith(f"{width}: ")]
        for fault in ("P.wide: from", "color-contrast", "image-alt"):
            assert any(fault in one for one in of_width), (fault, of_width)
    assert f"{PHONE}: div.: scrolls, which nobody sees" in faults  # bars of a telephone lie over the content


def test_the_report_stands_by_itself_with_its_figures_drawn(browser, run):
    browser.open((run / "report.html").as_uri())
    browser.run("document.querySelectorAll('details').forEach(table => table.open = true)")
    assert in_both_widths(browser) == []
    figures = browser.all("figure img")
    assert len(figures) == FIGURES
    for figure in figures:
        assert browser.run("return arguments[0].complete && arguments[0].naturalWidth", figure) > 200
        assert figure.get_attribute("width") == str(PANEL)  # on a telephone as wide as it is drawn
        assert colors(browser, figure) > 20  # axes, lines and words in shades; an image that is not drawn has one
    assert browser.text.count(SCRIPT) > 2  # the label, and texts among the examples
    assert any(SCRIPT in example.text for example in browser.all(".examples blockquote"))
    assert browser.run("return window.pwned") is None
    assert browser.run("return document.scripts.length") == 0
    assert browser.requests == [(run / "report.html").as_uri()]
    assert browser.errors == []


def test_the_demo_page_answers_and_asks_nobody_but_its_own_server(browser, page, run):
    url, process, scratch = page
    browser.open(url)
    box = browser.one("textarea")
    assert answer_sentence(read_results(run)) in browser.text
    box.send_keys(f"great fun {HOSTILE}")
    next(button for button in browser.all("button") if button.text == "Classify").click()
    rows = browser.wait(lambda: browser.all(".hf-labels tbody tr"))
    cells = [row.text.split() for row in rows]
    assert {name for name, _ in cells} == set(CUES)
    shares = [float(share.rstrip("%")) for _, share in cells]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert shares == sorted(shares, reverse=True)
    assert [value.text.split()[1] for value in browser.all(".hf-facts .hf-value")] == ["nats", "nats"]
    neighbors = browser.all(".hf-neighbors tbody tr")
    assert len(neighbors) == 5
    assert all(SCRIPT in row.text for row in neighbors)
    assert colors(browser, browser.one(".hf-labels")) > 20
    assert browser.run("return window.pwned") is None
    assert in_both_widths(browser) == []

    assert status(url, "/") == 200
    assert status(url, "/", Host="evil.example") == 403
    assert status(url, "/", Origin="http://evil.example") == 403
    assert status(url, "/gradio_api/upload", b"x" * 1000, **{"Content-Length": "1000"}) == 404
    assert status(url, "/gradio_api/queue/join", b"x" * 50_000_000, **{"Content-Length": "50000000"}) == 413

    served_by = {urlsplit(request).netloc for request in browser.requests}
    assert served_by == {urlsplit(url).netloc}
    assert browser.errors == []
    browser.driver.get("about:blank")
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=PATIENCE)
    assert complaints == ""  # no traceback, no warning, and no connection to anywhere else
    assert process.returncode == 0
    assert [path for path in scratch.rglob("*") if path.name != f"torchinductor_{getuser()}"] == []  # torch's, empty


def test_the_policy_has_the_browser_refuse_other_hosts(browser, page):
    browser.open(page[0])
    browser.one("textarea")
    browser.run("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:9/x.png'}))")
    assert browser.wait(lambda: any("Content Security Policy" in error for error in browser.errors))


@pytest.mark.slow
def test_a_bare_model_says_that_it_has_no_examples_and_shift_enter_asks(browser, run):
    with served(run / "model") as process:
        browser.open(address_of(process))
        box = browser.one("textarea")
        box.send_keys("  ")
        next(button for button in browser.all("button") if button.text == "Classify").click()
        assert browser.one(".hf-problem").text == "Type a text first."
        box.send_keys("dull " * 60, "\ue008\ue007")  # shift, enter
        browser.one(".hf-labels")
        assert browser.one(".hf-problem").text.endswith("only its first 48 tokens count.")
        assert "None to show" in browser.text
        assert browser.all(".hf-neighbors") == []
        assert browser.errors == []
