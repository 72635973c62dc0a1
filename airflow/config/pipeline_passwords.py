"""Writes the passwords of Airflow's two accounts where its sign-in reads them: `python -m pipeline_passwords`.

Run before the API server starts in a container. Importing Airflow would take seconds: this does not.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

PASSWORDS_FILE = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"


def passwords(environment: Mapping[str, str]) -> dict[str, str]:
    """Gives the passwords by account.

    Raises:
        SystemExit: the administrator has none, or both accounts have one name.
    """
    admin = environment.get("AIRFLOW_ADMIN_USER") or "admin"
    trigger = environment.get("AIRFLOW_TRIGGER_USER") or "trigger"
    if not environment.get("AIRFLOW_ADMIN_PASSWORD"):
        raise SystemExit("AIRFLOW_ADMIN_PASSWORD is not set. `make env` generates one into .env.")
    if admin == trigger:
        raise SystemExit(
            f"AIRFLOW_TRIGGER_USER must be another account than AIRFLOW_ADMIN_USER: {admin!r}."
        )
    # Without a password nobody signs in as it: Airflow would generate one and print it.
    return {
        admin: environment["AIRFLOW_ADMIN_PASSWORD"],
        trigger: environment.get("AIRFLOW_TRIGGER_PASSWORD") or secrets.token_urlsafe(32),
    }


def main() -> None:
    """Writes the file, readable by this user only."""
    path = Path(os.environ[PASSWORDS_FILE])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(passwords(os.environ), file)


if __name__ == "__main__":
    main()
