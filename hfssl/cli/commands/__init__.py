"""One file a command: `COMMAND`, with its options, the one call and its summary."""
