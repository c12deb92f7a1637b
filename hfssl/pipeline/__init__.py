"""The main job, `fit`: plan, stages, verdict, artifacts."""
