"""Formats numbers for the report and the model card."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "duration",
    "percent",
    "signed_interval",
    "signed_points",
]


def percent(value: float | None) -> str:
    """Formats `0.8432` as `"84.3"`; returns a dash for `None`."""
    return "–" if value is None else f"{100 * value:.1f}"


def signed_points(value: float) -> str:
    """Formats `-0.0124` as `"−1.2"`, with a real minus sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def signed_interval(interval: Sequence[float]) -> str:
    """Formats `[-0.012, 0.05]` as `"−1.2 to +5.0"`."""
    low, high = interval
    return f"{signed_points(low)} to {signed_points(high)}"


def duration(seconds: float) -> str:
    """Formats seconds as `3.2 s`, `4 min 5 s` or `2 h 7 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
