"""Is a model to be trusted? Verdict, calibration, cross-fitting, alarms."""
