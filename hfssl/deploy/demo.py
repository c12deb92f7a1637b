"""Implements `hfssl demo`: a page that shows the model's prediction for a typed text.

Gradio draws the page. Everything that it would load from other hosts (fonts, telemetry, the check for a newer version)
is off, and with a content security policy the browser blocks the rest. `hfssl.deploy.explain` computes the
predictions.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import uvicorn
from fastapi import FastAPI
from jinja2 import Environment, PackageLoader, StrictUndefined

from hfssl.deploy.explain import Explainer, Explanation
from hfssl.errors import ConfigurationError, HfsslError
from hfssl.reporting.good_enough import answer_sentence, next_step
from hfssl.reporting.results import RESULTS, read_results
from hfssl.reporting.standing import standing_sentence

__all__ = ["build_page", "render", "serve"]

CSS = Path(__file__).with_name("templates") / "demo.css"
FONTS = ["system-ui", "DejaVu Sans", "sans-serif"]  # fonts of the system; Gradio's default may come from another host
# Gradio compiles its templates in the browser ('unsafe-eval') and styles elements in place ('unsafe-inline').
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; object-src 'none'; base-uri 'self'; frame-ancestors 'none'"
)
# White on Gradio's own blue has a contrast below 4.5.
READABLE = {
    f"button_primary_background_fill{state}{mode}": color
    for state, color in (("", "*primary_600"), ("_hover", "*primary_700"))
    for mode in ("", "_dark")
}

MAX_CHARACTERS = 20_000  # of a text, as in load_table
MAX_BODY = 1 << 20  # bytes of one request: far more than two such texts
MAX_WAITING = 16  # requests that wait for their turn
REFUSED_PATHS = re.compile(r"/(gradio_api/)?(upload|file|proxy|component_server|stream|deep_link)([/=_?]|$)")


def serve(folder: str | os.PathLike, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves the page until Ctrl-C.

    Args:
        folder (`str | os.PathLike`): Folder of a run of `fit`, or of a model.
        host (`str`): Address to listen at.
        port (`int`): Port to listen at; 0 for a free one.
        ready (`Callable[[str], None]`): Function that is called once with the address of the page.

    Raises:
        ConfigurationError: if the address cannot be used.
        ModelError: as in `hfssl.deploy.explain.Explainer`.
        DataError: as in `hfssl.deploy.explain.Explainer`.
    """
    with _listening(host, port) as listener:  # before the model is loaded, which takes some seconds
        page = build_page(Explainer(folder), Path(folder).resolve().name, _how_right(Path(folder)))
        # No /docs: FastAPI's page of that name loads scripts from another host.
        app = FastAPI(openapi_url=None)
        theme = gr.themes.Default(primary_hue="blue", font=FONTS, font_mono=FONTS).set(**READABLE)
        app = gr.mount_gradio_app(
            app, page, path="/", theme=theme, css_paths=[CSS], footer_links=[], run_history=False,
            ssr_mode=False, mcp_server=False, enable_monitoring=False, pwa=False,
        )  # fmt: skip
        # Open pages hold a connection; without a limit the server would wait for them at the end.
        config = uvicorn.Config(_guarded(app, _own_names(host)), log_level="critical", timeout_graceful_shutdown=1)
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listener.getsockname()[1]}")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            pass  # Ctrl-C ends the server


def build_page(explainer: Explainer, title: str, how_right: Sequence[str]) -> gr.Blocks:
    """Builds the page without serving it.

    Args:
        explainer (`Explainer`): Model to ask.
        title (`str`): Its name.
        how_right (`Sequence[str]`): Sentences on how right it is, and on what rows.
    """
    rows, labels = len(explainer.rows), len(explainer.label_names)
    known = f", {rows:,} labeled examples" if rows else ""
    # analytics_enabled=False also turns off Gradio's check for a newer version.
    with gr.Blocks(title=f"hfssl: {title}", analytics_enabled=False) as page:
        gr.HTML(_template("demo_head.html").render(title=title, labels=labels, known=known, how_right=how_right))
        names = ["First text", "Second text"] if explainer.pairs else ["Text"]
        boxes = [
            gr.Textbox(
                label=name,
                lines=3,
                max_lines=12,
                max_length=MAX_CHARACTERS,
                autofocus=index == 0,
                placeholder="Type or paste a text",
            )
            for index, name in enumerate(names)
        ]
        button = gr.Button("Classify", variant="primary")
        answer = gr.HTML(render(None), elem_classes=["hf-answer"])
        page.queue(max_size=MAX_WAITING)
        # One request at a time, Gradio's default: passes with dropout temporarily change the model's flags.
        gr.on(
            [button.click, *(box.submit for box in boxes)], partial(_answer, explainer), boxes, answer,
            api_visibility="private", show_progress="minimal",
        )  # fmt: skip
    return page


def render(explanation: Explanation | None, *, problem: str = "", passes: int = 0, rows: int = 0) -> str:
    """Renders the prediction as HTML, with all texts escaped.

    Args:
        explanation (`Explanation | None`): Prediction to show; `None` before the first text.
        problem (`str`, defaults to `""`): Error message to show in its place.
        passes (`int`, defaults to `0`): Number of passes of MC dropout in `explanation.bald`.
        rows (`int`, defaults to `0`): Number of labeled rows that were searched for neighbours.
    """
    return _template("demo.html").render(explanation=explanation, problem=problem, passes=passes, rows=rows)


def _answer(explainer: Explainer, *texts: str | None) -> str:
    texts = tuple(text or "" for text in texts)
    if not any(text.strip() for text in texts):
        return render(None, problem="Type a text first.")
    if max(map(len, texts)) > MAX_CHARACTERS:
        return render(None, problem=f"The text is too long: give one of at most {MAX_CHARACTERS:,} characters.")
    try:
        explanation = explainer(*texts)
    except HfsslError as error:
        return render(None, problem=str(error))
    return render(explanation, passes=explainer.passes, rows=len(explainer.rows))


def _how_right(folder: Path) -> list[str]:
    """Returns the sentences that the run's report begins with, too: nobody should trust answers of unknown worth."""
    if not (folder / RESULTS).is_file():
        return ["How right its answers are is not known here: this folder holds a model without its run."]
    results = read_results(folder)
    sentences = [standing_sentence(results), answer_sentence(results) or next_step(results)]
    return [sentence for sentence in sentences if sentence]


def _template(name: str) -> Any:
    # Autoescape shows a text like "<script>" literally.
    return Environment(
        loader=PackageLoader("hfssl.deploy", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template(name)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"Expected port {port} of {host} to be free, but another program listens there: give another --port, "
                "or 0 for a free one."
            ) from error
        raise ConfigurationError(
            f"Expected an address of this machine with a port that you may use, got {host} and {port} "
            f"({error.strerror}): leave --host out to show the page on this machine only."
        ) from error


def _own_names(host: str) -> frozenset[str] | None:
    """Returns the names under which browsers may ask for the page; `None` for all addresses in numbers.

    A page of another site can have its own name resolve to this machine (DNS rebinding); its requests then carry that
    name. Numbers cannot be rebound, so that a page for all who reach this machine answers to those.
    """
    try:
        everyone = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        everyone = False
    return None if everyone else frozenset({host.lower(), "localhost", "127.0.0.1", "::1"})


def _known(name: str | None, names: frozenset[str] | None) -> bool:
    if name is None:
        return False
    if names is not None:
        return name in names
    if name in ("localhost", socket.gethostname().lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refusal(scope: Any, names: frozenset[str] | None) -> tuple[int, str] | None:
    """Returns status and reason for a request that is not of the page itself; `None` for its own requests."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get("host", "")
    try:
        if not _known(urlsplit(f"//{host}").hostname, names):
            return 403, "This page is not served under that name."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "Requests of other pages are refused."
        length = int(headers.get("content-length", "0"))
    except ValueError:
        return 400, "The request cannot be read."
    if headers.get("sec-fetch-site", "none") == "cross-site" and scope.get("method") != "GET":
        return 403, "Requests of other pages are refused."
    if REFUSED_PATHS.match(scope["path"]):
        return 404, "There is no such page; nothing can be uploaded."
    return (413, f"A request may have at most {MAX_BODY:,} bytes.") if length > MAX_BODY else None


def _guarded(app: Callable[..., Awaitable[None]], names: frozenset[str] | None) -> Callable[..., Awaitable[None]]:
    """Refuses requests of other pages, uploads and large bodies; adds the content security policy to all responses."""
    policy = (b"content-security-policy", POLICY.encode("ascii"))

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await app(scope, receive, send)
        refusal = _refusal(scope, names)
        if refusal is not None and scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        if refusal is not None:
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), policy]
            await send({"type": "http.response.start", "status": refusal[0], "headers": headers})
            return await send({"type": "http.response.body", "body": refusal[1].encode()})
        taken = 0

        async def receive_bounded() -> Any:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))  # a body in chunks tells no length
            return message if taken <= MAX_BODY else {"type": "http.disconnect"}

        async def send_with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], policy]}
            await send(message)

        return await app(scope, receive_bounded, send_with_policy)

    return guarded
