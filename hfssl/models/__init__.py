"""Backbones, heads, adapters, checkpoints."""
