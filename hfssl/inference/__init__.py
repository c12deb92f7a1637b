"""Whole pools through a model."""
