"""Prometheus, Alertmanager and their exporters: found, configured, supervised beside the embedded run."""
