"""Embedding signals: what the frozen encoder tells of the pool."""
