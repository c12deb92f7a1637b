"""The methods: one file or folder each, with config, objective and trainer."""
