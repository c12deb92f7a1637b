"""Self-training: teachers, pseudo-labels, students, rounds."""
