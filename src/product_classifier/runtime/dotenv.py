"""The private `.env`: what a first start needs and nobody has set is generated once."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from product_classifier.core.files import write_text_atomic

PRIVATE = 0o600
_HEADER = "# Settings of this checkout; .env.example lists them all. Private: never commit it.\n"


@dataclass(frozen=True)
class Generated:
    """What `complete_dotenv` added."""

    airflow_password: str | None = None


def complete_dotenv(path: Path) -> Generated:
    """Adds what is missing to `.env`; leaves every line that is there as it is.

    The file ends up readable by this user only.
    """
    present = dotenv_values(path, interpolate=False) if path.exists() else {}
    password = None
    if not (os.environ.get("AIRFLOW_ADMIN_PASSWORD") or present.get("AIRFLOW_ADMIN_PASSWORD")):
        password = secrets.token_urlsafe(12)
        text = path.read_text(encoding="utf-8") if path.exists() else _HEADER
        if text and not text.endswith("\n"):
            text += "\n"
        # The last line of a name wins, so an empty AIRFLOW_ADMIN_PASSWORD= above does no harm.
        text += f"AIRFLOW_ADMIN_PASSWORD={password}\n"
        write_text_atomic(path.resolve(), text, mode=PRIVATE)
    elif path.exists() and path.stat().st_mode & 0o077:
        path.chmod(PRIVATE)
    return Generated(airflow_password=password)


def private_secret(path: Path) -> str:
    """Reads a secret kept in a private file; generates it first where there is none."""
    if not path.exists():
        write_text_atomic(path, secrets.token_urlsafe(48), mode=PRIVATE)
    return path.read_text(encoding="utf-8").strip()
