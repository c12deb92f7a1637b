"""A finished model in use: predict, push, export, demo."""
