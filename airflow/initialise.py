"""Brings Airflow's database up to date and creates the pool that the DAG needs.

Run with Airflow's own Python: `airflow/.venv/bin/python airflow/initialise.py`. One process does
both: each call of the `airflow` command costs five seconds of start-up.
"""

import logging

from airflow.models.pool import Pool
from airflow.utils.db import initdb

POOL, SLOTS = "dvc", 1


def main() -> None:
    """Migrates the database and creates the pool; changes nothing where both are right."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    initdb()  # creates an empty database, migrates an older one
    Pool.create_or_update_pool(
        POOL, SLOTS, "Tasks that take DVC's lock: one at a time", include_deferred=False
    )


if __name__ == "__main__":
    main()
