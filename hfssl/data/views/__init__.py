"""Views of a row: what a batch holds of it."""
