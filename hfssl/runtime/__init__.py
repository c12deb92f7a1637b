"""Reliability: files, ranks, random streams, interrupts, precision."""
