"""Kinds of table files: one module a kind, each a `TableFile`."""
