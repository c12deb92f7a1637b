"""Checks of a whole page in the browser: what does not fit, and what people with other eyes cannot read or reach.

axe-core (the package axe-core-python, for development only) knows the rules on contrast, names and structure.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.browser import Browser

PHONE, DESKTOP = 390, 1200  # pixels
HEIGHT = 844

# Elements that end outside of the page or of their own box, unless something around them scrolls.
OVERFLOWING = """
const width = arguments[0], found = [];
const tell = (e, why) => found.push(`${e.tagName}.${e.className}: ${why}: ${e.innerText || ''}`.slice(0, 160));
const scrolls = e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
const inside = e => e && (scrolls(e) || inside(e.parentElement));
const wide = document.documentElement.scrollWidth;
if (wide > width) found.push(`the page is ${wide} wide`);
for (const e of document.body.querySelectorAll('*')) {
    const box = e.getBoundingClientRect(), shown = e.clientWidth, display = getComputedStyle(e).display;
    if (box.width < 2 || box.height < 2 || inside(e.parentElement)) continue;
    if (!e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    if (box.left < -1 || box.right > width + 1) tell(e, `from ${box.left} to ${box.right}`);
    if (display === 'inline' || scrolls(e) || !shown) continue;
    if (e.scrollWidth > shown + 1) tell(e, `${e.scrollWidth} in ${shown}`);
}
return found;
"""
# Elements that hide a part of themselves without a bar that says so.
SILENT = """
return [...document.body.querySelectorAll('*')].filter(e =>
    e.scrollWidth > e.clientWidth + 1 && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)
    && e.checkVisibility() && e.clientWidth && e.offsetHeight - e.clientHeight < 6
).map(e => `${e.tagName.toLowerCase()}.${e.className}`);
"""
AXE = """
const done = arguments[arguments.length - 1];
const place = node => `${node.html.slice(0, 120)} ${node.failureSummary}`;
const told = found => `${found.id}: ${found.nodes.map(place).join(' | ')}`;
axe.run(document, {resultTypes: ['violations']}).then(
    result => done(result.violations.map(told)), error => done([String(error)]));
"""


def set_width(browser: Browser, width: int) -> None:
    """Gives the page the width of a telephone (where bars hide themselves, as there) or of a desktop window."""
    screen = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def overflowing(browser: Browser, width: int) -> list[str]:
    """Returns what does not fit into the page, and what scrolls without a sign of it."""
    silent = [f"{name}: scrolls, which nobody sees" for name in browser.run(SILENT)]
    return browser.run(OVERFLOWING, width) + silent


def inaccessible(browser: Browser) -> list[str]:
    """Returns what axe-core finds on the page as it is now: contrast, names, structure."""
    browser.run(_axe())
    browser.driver.set_script_timeout(120)
    return browser.driver.execute_async_script(AXE)


@cache
def _axe() -> str:
    spec = find_spec("axe_core_python")
    if spec is None:
        pytest.skip("needs axe-core-python (the extra `dev`)")
    return (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")
