"""Experiment tracking: a local record of each training run first, then MLflow."""
