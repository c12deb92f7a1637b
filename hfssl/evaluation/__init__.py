"""Trust in a model: verdict, calibration, cross-fitting, alarms."""
