"""Pretext tasks: training on raw text before any label."""
