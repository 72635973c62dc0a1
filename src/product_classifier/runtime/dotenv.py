"""The private `.env`: what a first start needs and nobody has set is generated once."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values

from product_classifier.core.files import write_text_atomic

PRIVATE = 0o600
_HEADER = "# Settings of this checkout; .env.example lists them all. Private: never commit it.\n"


_PASSWORD_BYTES = 12
# What a first start generates.
_PASSWORDS = (
    "AIRFLOW_ADMIN_PASSWORD",
    "AIRFLOW_TRIGGER_PASSWORD",
    "ADMIN_PASSWORD",
    "SMOKE_PASSWORD",
)


@dataclass(frozen=True)
class Generated:
    """What `complete_dotenv` added: passwords by the name of their setting."""

    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def airflow_password(self) -> str | None:
        """Airflow's password, if it is new."""
        return self.passwords.get("AIRFLOW_ADMIN_PASSWORD")

    @property
    def admin_password(self) -> str | None:
        """The password of the API's administrator, if it is new."""
        return self.passwords.get("ADMIN_PASSWORD")


def complete_dotenv(path: Path, *, has_users: bool = False) -> Generated:
    """Adds what is missing to `.env`; leaves every line that is there as it is.

    What the environment sets is not written down. The file ends up readable by this user only.

    Args:
        path: The `.env` file; it need not be there.
        has_users: Whether the API has its administrator already: a new password would not be theirs.
    """
    present = dotenv_values(path, interpolate=False) if path.exists() else {}
    wanted = [name for name in _PASSWORDS if not (has_users and name == "ADMIN_PASSWORD")]
    missing = [name for name in wanted if not (os.environ.get(name) or present.get(name))]
    passwords = {name: secrets.token_urlsafe(_PASSWORD_BYTES) for name in missing}
    if passwords:
        text = path.read_text(encoding="utf-8") if path.exists() else _HEADER
        if text and not text.endswith("\n"):
            text += "\n"
        # The last line of a name wins, so an empty ADMIN_PASSWORD= above does no harm.
        text += "".join(f"{name}={value}\n" for name, value in passwords.items())
        write_text_atomic(path.resolve(), text, mode=PRIVATE)
    elif path.exists() and path.stat().st_mode & 0o077:
        path.chmod(PRIVATE)
    return Generated(passwords)


def private_secret(path: Path) -> str:
    """Reads a secret kept in a private file; generates it first where there is none."""
    if not path.exists():
        write_text_atomic(path, secrets.token_urlsafe(48), mode=PRIVATE)
    return path.read_text(encoding="utf-8").strip()
