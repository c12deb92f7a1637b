"""Loads and saves backbones, heads, adapters and checkpoints."""
