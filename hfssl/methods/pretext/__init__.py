"""Pretext tasks: training on raw text, before and without labels."""
