"""Kinds of prediction. Today there is one label per text; several labels, tokens and images need one class each."""
