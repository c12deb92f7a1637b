"""Defines views of a row: its columns in a batch."""
