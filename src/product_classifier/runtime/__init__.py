"""The embedded run: Airflow and MLflow on this machine, supervised, without containers."""
