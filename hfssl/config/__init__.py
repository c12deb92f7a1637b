"""What flags and YAML files may hold, and how they are read."""
