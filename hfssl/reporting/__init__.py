"""Builds the report, the model cards and tables from `results.json`."""
