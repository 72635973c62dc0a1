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

    @property
    def grafana_password(self) -> str | None:
        """Grafana's password, if it is new."""
        return self.passwords.get("GRAFANA_ADMIN_PASSWORD")


def missing_secrets(path: Path, names: Iterable[str]) -> list[str]:
    """Lists what neither the environment nor `.env` sets."""
    present = dotenv_values(path, interpolate=False) if path.exists() else {}
    return [name for name in names if not (os.environ.get(name) or present.get(name))]


def _password() -> str:
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def complete_dotenv(
    path: Path, *, has_users: bool = False, stack: bool = False, grafana: bool = False
) -> Generated:
    """Adds what is missing to `.env`; leaves every line that is there as it is.

    What the environment sets is not written down. The file ends up readable by this user only.

    Args:
        path: The `.env` file; it need not be there.
        has_users: Whether the API has its administrator already: a new password would not be theirs.
        stack: Whether the secrets of the container stack are wanted too.
        grafana: Whether there is a Grafana that wants a password.
    """
    wanted: dict[str, Callable[[], str]] = dict.fromkeys(_PASSWORDS, _password)
    if has_users:
        del wanted["ADMIN_PASSWORD"]
    if grafana or stack:
        wanted["GRAFANA_ADMIN_PASSWORD"] = _password
    if stack:
        wanted |= STACK_SECRETS
    return _complete(path, wanted)


def complete_grafana_password(path: Path) -> Generated:
    """Adds Grafana's password to `.env`, where it is missing, and nothing else."""
    return _complete(path, {"GRAFANA_ADMIN_PASSWORD": _password})


def _complete(path: Path, wanted: Mapping[str, Callable[[], str]]) -> Generated:
    passwords = {name: wanted[name]() for name in missing_secrets(path, wanted)}
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
