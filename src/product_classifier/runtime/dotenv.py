"""The private `.env`: what a first start needs and nobody has set is generated once."""

import base64
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
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


def _hex_secret() -> str:
    return secrets.token_hex(24)


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


# What the container stack needs besides. Most of it becomes a part of an address, so it is hexadecimal.
STACK_SECRETS: Mapping[str, Callable[[], str]] = {
    "POSTGRES_PASSWORD": _hex_secret,
    "AIRFLOW_DB_PASSWORD": _hex_secret,
    "MLFLOW_DB_PASSWORD": _hex_secret,
    "AUTH_DB_PASSWORD": _hex_secret,
    "REDIS_PASSWORD": _hex_secret,
    "S3_ACCESS_KEY": lambda: secrets.token_hex(10),
    "S3_SECRET_KEY": _hex_secret,
    "AIRFLOW_FERNET_KEY": _fernet_key,
    "AIRFLOW_JWT_SECRET": _hex_secret,
    "AIRFLOW_API_SECRET": _hex_secret,
}


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


def missing_secrets(path: Path, names: Iterable[str]) -> list[str]:
    """Lists what neither the environment nor `.env` sets."""
    present = dotenv_values(path, interpolate=False) if path.exists() else {}
    return [name for name in names if not (os.environ.get(name) or present.get(name))]


def complete_dotenv(path: Path, *, has_users: bool = False, stack: bool = False) -> Generated:
    """Adds what is missing to `.env`; leaves every line that is there as it is.

    What the environment sets is not written down. The file ends up readable by this user only.

    Args:
        path: The `.env` file; it need not be there.
        has_users: Whether the API has its administrator already: a new password would not be theirs.
        stack: Whether the secrets of the container stack are wanted too.
    """
    wanted = [name for name in _PASSWORDS if not (has_users and name == "ADMIN_PASSWORD")]
    missing = missing_secrets(path, wanted)
    passwords = {name: secrets.token_urlsafe(_PASSWORD_BYTES) for name in missing}
    if stack:
        passwords |= {name: STACK_SECRETS[name]() for name in missing_secrets(path, STACK_SECRETS)}
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
