"""Helpers that several test files share; no file here holds a test."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
