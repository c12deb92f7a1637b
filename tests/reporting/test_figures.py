"""Figures: names drawn literally, and numbers for names that the font lacks."""

from __future__ import annotations

import matplotlib

from hfssl.reporting import figures


def test_dollar_names_are_drawn_literally_and_no_setting_leaks():
    # Were "$...$" read as mathematics, both names would be drawn the same (mathtext ignores spaces), and
    # "$\\frac{1}{$" would raise.
    before = dict(matplotlib.rcParams)
    tight = figures.class_counts({"labeled": [1, 1]}, ["$ab$", "b"])
    spaced = figures.class_counts({"labeled": [1, 1]}, ["$a b$", "b"])
    assert tight.uri != spaced.uri
    figures.class_counts({"labeled": [1, 1]}, ["$\\frac{1}{$", "\\undefined"])
    assert dict(matplotlib.rcParams) == before
