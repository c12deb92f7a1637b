"""Consistency regularization: predictions for a row and for changed versions of it must agree."""
