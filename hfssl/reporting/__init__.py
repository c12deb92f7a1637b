"""From `results.json` to the report, the model card and tables."""
