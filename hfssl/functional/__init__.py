"""Formulas as pure functions, the paper named at each."""
