"""Figures: names drawn literally, and numbers for names that the font lacks."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from hfssl.reporting import figures


def test_dollar_names_are_drawn_literally_and_no_setting_leaks():
    # Were "$...$" read as mathematics, both names would be drawn the same (mathtext ignores spaces), and
    # "$\\frac{1}{$" would raise.
    before = dict(matplotlib.rcParams)
    tight = figures.class_counts({"labeled": [1, 1]}, ["$ab$", "b"])[0]
    spaced = figures.class_counts({"labeled": [1, 1]}, ["$a b$", "b"])[0]
    assert tight.uri != spaced.uri
    figures.class_counts({"labeled": [1, 1]}, ["$\\frac{1}{$", "\\undefined"])
    assert dict(matplotlib.rcParams) == before


def test_panels_fit_a_telephone_unless_names_or_counts_need_more_room():
    def width(classes, count=9, name="c"):
        [picture] = figures.confusion(np.full((classes, classes), count), [f"{name}{i}" for i in range(classes)])
        return picture.width

    most = round(100 * figures.PANEL_WIDTH)
    assert width(2) == width(12) == width(31) == most
    assert width(12, count=1234) > most  # twelve counts of five characters
    assert most < width(30, name="a name that is long") <= 776  # the page for a desktop


def contrast(one: str, other: str) -> float:
    """Ratio of the luminances of two colors, as in WCAG 2.1."""
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_words_and_marks_stand_out():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast(figures.INK, "#ffffff") > 4.5
    assert contrast(figures.MUTED, "#f7f9fb") > 4.5  # zeros in the lightest cells
    for color in (figures.ACCENT, figures.GREEN, figures.AMBER, figures.QUIET):
        assert contrast(color, "#ffffff") >= 3
    for share in np.linspace(0, 1, 21):
        cell = to_hex(figures.BLUES(share))
        assert contrast("#ffffff" if share > figures.WHITE_ABOVE else figures.INK, cell) > 3.5
