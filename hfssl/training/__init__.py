"""The engine: all that touches `transformers.Trainer`."""
