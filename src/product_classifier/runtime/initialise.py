"""Prepares Airflow: database, pool, password file. Does nothing where all is as it should be."""

import json
import secrets
import subprocess
from pathlib import Path

from product_classifier.core.errors import ConfigurationError, RuntimeServiceError
from product_classifier.core.files import sha256_file, write_bytes_atomic, write_text_atomic
from product_classifier.core.settings import Settings
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.services import airflow_environment, machine_environment

MIGRATION_TIMEOUT_SECONDS = 600


def require_environments(layout: Layout) -> None:
    """Checks that both Python environments are there.

    Raises:
        ConfigurationError: one is missing.
    """
    for program in (layout.program("product-classifier"), layout.airflow_program("airflow")):
        if not program.exists():
            raise ConfigurationError(f"{program} is missing. Run `make setup` in {layout.root}.")


def write_passwords(layout: Layout, settings: Settings) -> None:
    """Gives Airflow the passwords of its two accounts; the file is private.

    Raises:
        ConfigurationError: no password is set, or both accounts have one name.
    """
    if settings.airflow_admin_password is None:
        raise ConfigurationError(
            "AIRFLOW_ADMIN_PASSWORD is not set. `make start` generates one into .env."
        )
    if settings.airflow_trigger_user == settings.airflow_admin_user:
        raise ConfigurationError(
            "AIRFLOW_TRIGGER_USER must be another account than AIRFLOW_ADMIN_USER. "
            f"Received: {settings.airflow_trigger_user!r} for both."
        )
    content = {settings.airflow_admin_user: settings.airflow_admin_password.get_secret_value()}
    trigger = settings.airflow_trigger_password
    # Without a password nobody signs in as it: Airflow would generate one and print it.
    content[settings.airflow_trigger_user] = (
        trigger.get_secret_value() if trigger else secrets.token_urlsafe(32)
    )
    path = layout.airflow_home / "passwords.json"
    wanted = json.dumps(content).encode()
    if not path.exists() or path.read_bytes() != wanted:
        write_bytes_atomic(path, wanted, mode=0o600)


def _migration_stamp(layout: Layout) -> Path:
    return layout.airflow_home / ".migrated"


def needs_migration(layout: Layout) -> bool:
    """Tells whether the database is missing or was made by other Airflow packages."""
    stamp = _migration_stamp(layout)
    if not (layout.airflow_home / "airflow.db").exists() or not stamp.exists():
        return True
    return stamp.read_text() != sha256_file(layout.root / "airflow" / "uv.lock")


def initialise_airflow(layout: Layout, settings: Settings) -> bool:
    """Brings Airflow's state up to date.

    Returns:
        Whether the database was created or migrated.

    Raises:
        RuntimeServiceError: the migration failed; with the end of what it said.
    """
    write_passwords(layout, settings)
    if not needs_migration(layout):
        return False
    result = subprocess.run(  # noqa: S603
        [str(layout.airflow_program("python")), str(layout.root / "airflow" / "initialise.py")],
        cwd=layout.airflow_home,
        env={**machine_environment(), **airflow_environment(layout, settings)},
        capture_output=True,
        text=True,
        timeout=MIGRATION_TIMEOUT_SECONDS,
        check=False,
    )
    if result.returncode:
        said = "\n".join((result.stdout + result.stderr).splitlines()[-20:])
        raise RuntimeServiceError(f"Airflow's database could not be prepared:\n{said}")
    (layout.airflow_home / "airflow.db").chmod(0o600)
    write_text_atomic(_migration_stamp(layout), sha256_file(layout.root / "airflow" / "uv.lock"))
    return True
