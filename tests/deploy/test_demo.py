"""The demo page without a browser: the content of its HTML, and the input that the command rejects."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest

pytest.importorskip("gradio", reason="needs the extra `demo`")

from hfssl.cli.main import main
from hfssl.deploy.demo import _answer, _guarded, _own_names, render
from hfssl.deploy.explain import Explanation, LabeledRow, Neighbor

SCRIPT = "<script>alert('x')</script>"
ESCAPED = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"


def test_the_answer_shows_every_number_and_escapes_every_text():
    rows = [LabeledRow(("one", SCRIPT), "yes", "labeled"), LabeledRow(("two",), SCRIPT, "validation")]
    neighbors = [Neighbor(row, similarity) for row, similarity in zip(rows, (0.98765, 0.5), strict=True)]
    said = Explanation([(SCRIPT, 0.8754), ("no", 0.1246)], 0.3765, 0.5432, 0.01234, neighbors, cut_at=128)
    html = render(said, passes=16, rows=48)
    assert "<script" not in html
    assert html.count(ESCAPED) == 3  # the label's probability, a neighbour's text, a neighbour's label
    for shown in ("87.5%", "12.5%", "0.377 nats", "54%", "0.012 nats", "16 passes", "0.988", "0.500", "128 tokens"):
        assert shown in html
    assert html.count("<small>validation</small>") == 1
    assert "among 48 labeled rows" in html


def test_what_is_not_known_is_said():
    html = render(Explanation([("yes", 1.0), ("no", 0.0)], 0.0, 0.0, None, []))
    assert "the model has no dropout" in html
    assert "None to show" in html
    assert "tokens count" not in html
    assert ESCAPED in render(None, problem=SCRIPT)


def test_bad_addresses_and_folders_are_one_sentence(tmp_path, capsys):
    assert main(["demo", str(tmp_path / "none"), "--port", "0"]) == 2
    assert main(["demo", str(tmp_path), "--port", "70000"]) == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["demo", str(tmp_path), "--port", str(taken.getsockname()[1])]) == 2
    assert main(["demo", str(tmp_path), "--host", "192.0.2.1"]) == 2  # of no machine: kept for documentation
    lines = capsys.readouterr().err.splitlines()
    expected = ("no such folder", "at most 65535", "another program", "address of this machine")
    for line, words in zip(lines, expected, strict=True):
        assert line.startswith("hfssl: error: ")
        assert words in line


def test_without_gradio_the_command_says_how_to_get_it(tmp_path):
    code = (
        "import sys; import hfssl.cli.commands.demo as demo; demo.find_spec = lambda name: None\n"
        "from hfssl.cli.main import main; sys.exit(main(['demo', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "hfssl[demo]" in done.stderr
    assert "Traceback" not in done.stderr


def answer_to(app, path="/", method="GET", body=(b"",), **headers):
    """Status of an ASGI application's answer to one request."""
    parts, sent = list(body), []

    async def receive():
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(app({"type": "http", "path": path, "method": method, "headers": named}, receive, send))
    return sent[0]["status"] if sent else None


async def reading(scope, receive, send):
    """Reads the whole request, as Gradio does, and answers."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_requests_of_other_pages_uploads_and_large_bodies_are_refused():
    app = _guarded(reading, _own_names("127.0.0.1"))
    assert answer_to(app, host="127.0.0.1:7860") == 200
    assert answer_to(app, host="localhost:7860", origin="http://localhost:7860") == 200
    assert answer_to(app, host="[::1]:7860") == 200
    assert answer_to(app, host="evil.example") == 403
    assert answer_to(app) == 403
    assert answer_to(app, host="localhost:7860", origin="http://evil.example") == 403
    assert answer_to(app, host="localhost:7860", origin="null") == 403
    assert answer_to(app, method="POST", host="localhost:7860", sec_fetch_site="cross-site") == 403
    for path in ("/gradio_api/upload", "/upload", "/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://x"):
        assert answer_to(app, path, method="POST", host="localhost:7860") == 404
    assert answer_to(app, method="POST", host="localhost", content_length="50000000") == 413
    assert answer_to(app, method="POST", host="localhost", content_length="many") == 400
    assert answer_to(app, method="POST", host="localhost", body=[b"x" * 600_000] * 2) is None  # cut off
    assert answer_to(app, method="POST", host="localhost", body=[b"x" * 500_000] * 2) == 200


def test_a_page_for_everyone_answers_to_addresses_but_not_to_names_of_others():
    app = _guarded(reading, _own_names("0.0.0.0"))
    assert answer_to(app, host="192.0.2.7:7860") == 200
    assert answer_to(app, host="evil.example:7860") == 403


def test_long_texts_are_not_classified():
    assert "too long" in _answer(None, "x" * 20_001)
