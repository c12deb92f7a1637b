"""Embedding signals: properties of the pool in the embeddings of a frozen encoder."""
