"""Provides formulas as pure functions; each names its paper."""
