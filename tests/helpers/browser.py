"""Headless Chromium for tests: opens a page and returns its network requests and console messages.

Debian's packages chromium and chromium-driver, driven by selenium; `make test` installs them where it can.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

NAMES = ("chromium", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1000,1400"
).split()
INSIDE = ("data:", "blob:", "about:", "chrome:", "chrome-extension:")  # addresses for which nobody is asked
PATIENCE = 180  # seconds until a page must show what it is to show; the machine may be busy


class Browser:
    """One Chromium with an empty profile. `requests` and `errors` tell what was seen since the last `open`."""

    def __init__(self, driver: Chrome):
        self.driver = driver
        self._requests: list[str] = []
        self._errors: list[str] = []

    def open(self, url: str) -> None:
        """Opens a page, once all that its last one had to say is thrown away."""
        self.driver.get("about:blank")
        self._read_logs()
        self._requests, self._errors = [], []
        self.driver.get(url)

    @property
    def requests(self) -> list[str]:
        """Addresses that the page asked somebody for, itself among them, whether there was an answer or not."""
        self._read_logs()
        return [url for url in self._requests if not url.startswith(INSIDE)]

    @property
    def errors(self) -> list[str]:
        """What went to the console as an error: exceptions, failed requests, violated policies."""
        self._read_logs()
        return list(self._errors)

    @property
    def text(self) -> str:
        """All text that a reader of the page sees."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def all(self, selector: str) -> list[WebElement]:
        """Elements by CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The first element, awaited until it is there."""
        return self.wait(lambda: self.all(selector))[0]

    def run(self, script: str, *arguments: Any) -> Any:
        """What a JavaScript function body returns."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Any) -> Any:
        """Waits until `condition()` is true, and returns what it is."""
        return WebDriverWait(self.driver, PATIENCE).until(lambda _: condition())

    def picture(self, element: WebElement) -> Image.Image:
        """A screenshot of an element."""
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        return Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")

    def _read_logs(self) -> None:
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                self._requests.append(event["params"]["request"]["url"])
            if event["method"] == "Network.webSocketCreated":
                self._requests.append(event["params"]["url"])
        self._errors += [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@contextmanager
def started_browser() -> Iterator[Browser]:
    """Starts Chromium and ends it; skips the test where it is not installed."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs Chromium and ChromeDriver (Debian: apt-get install chromium chromium-driver)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = program
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        # With the path given, selenium does not look for a driver, and so never downloads one.
        chrome = Chrome(options=options, service=Service(executable_path=driver))
        try:
            yield Browser(chrome)
        finally:
            chrome.quit()
