"""Defines and reads the options in flags and YAML files."""
