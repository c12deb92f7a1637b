"""What a prediction is: one label per text today; several labels, tokens and images go through the same seam."""
