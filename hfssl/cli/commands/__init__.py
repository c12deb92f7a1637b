"""The commands, one file each: `COMMAND`, with its options, its one function call and its summary."""
