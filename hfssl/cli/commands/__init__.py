"""One file a verb: its options, the one call, its summary."""
