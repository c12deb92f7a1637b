"""Provides what reliable runs need: files, ranks, random streams, interrupts, precision."""
