"""Uses a finished model: predict, push, export, demo."""
