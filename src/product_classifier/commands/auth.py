"""`product-classifier auth`: runs the auth service, and what its administrator does on its host."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.logging import configure_logging
from product_classifier.core.settings import get_settings

if TYPE_CHECKING:
    from product_classifier.auth.service import AuthService

_COMMAND_LINE = "command line"


def register(app: typer.Typer) -> None:
    """Adds the command and its sub-commands."""
    group = typer.Typer(rich_markup_mode=None)
    group.callback(invoke_without_command=True)(_auth)
    group.command("run")(_run)
    group.command("rotate-keys")(_rotate_keys)
    group.command("migrate")(_migrate)
    group.command("add-user")(_add_user)
    group.command("set-password")(_set_password)
    app.add_typer(group, name="auth")


def _auth(context: typer.Context) -> None:
    """Runs the auth service, or works on its users and keys.

    Its commands work where auth runs: in containers inside its own, see docs/operations.md, "Containers".
    """
    if context.invoked_subcommand is None:
        _run()


def _run() -> None:
    """Runs the auth service until SIGTERM.

    Listens on AUTH_HOST and AUTH_PORT. Exit code 2: a setting can't be used.
    """
    configure_logging("auth")
    from product_classifier.auth.app import create_app
    from product_classifier.web.server import run_service

    settings = get_settings()
    run_service(
        lambda: create_app(settings),
        settings.auth_host,
        settings.auth_port,
        settings.shutdown_grace_seconds,
        settings.shutdown_delay_seconds,
    )


def _rotate_keys(
    leaked: Annotated[
        bool,
        typer.Option(
            "--leaked",
            help="The old key is known to others: it ends at once, with every token that it signed.",
        ),
    ] = False,
) -> None:
    """Makes a new signing key.

    Old ones are kept until the last token that they signed is dead. A running service follows by itself. Exit code 2:
    ALGORITHM=HS256 has no such keys.
    """
    configure_logging("auth")
    from product_classifier.auth.audit import AuditEvent, Origin
    from product_classifier.auth.keys import PUBLISH_SECONDS, KeyStore

    settings = get_settings()
    if settings.algorithm != "ES256":
        raise ConfigurationError(
            "ALGORITHM=HS256 signs with SECRET_KEY: change that setting and start auth and serve again."
        )
    with _opened() as service:
        store = KeyStore(settings.auth_data_path)
        times = (0, 0) if leaked else (settings.token_lifetime_seconds, PUBLISH_SECONDS)
        key = store.rotate(times[0], publish_seconds=times[1])
        detail = f"kid {key.kid}" + (", old keys ended at once" if leaked else "")
        service.administration.record(AuditEvent.KEYS_ROTATED, Origin(actor=_COMMAND_LINE), detail)
    typer.echo(f"New signing key: {key.kid}")


def _migrate() -> None:
    """Brings the database to this version's tables. `auth` does so at its start too."""
    configure_logging("auth")
    with _opened():
        typer.echo("The database is up to date.")


def _add_user(
    name: Annotated[str, typer.Argument(help="1 to 64 letters, digits, dots, dashes, _ or @.")],
    role: Annotated[str, typer.Option(help="admin or user.")] = "user",
    full_name: Annotated[str | None, typer.Option(help="At most 200 characters.")] = None,
) -> None:
    """Makes a user.

    The password is asked for, or read from the first line of stdin. Exit code 2: the name is taken or not allowed, or
    the password breaks a rule.
    """
    configure_logging("auth")
    from product_classifier.auth.audit import Origin
    from product_classifier.auth.passwords import hash_password
    from product_classifier.auth.users import NewUser

    if role not in ("admin", "user"):
        raise ConfigurationError(f"--role must be admin or user. Received: {role!r}.")
    if full_name is not None and len(full_name) > 200:
        raise ConfigurationError(
            f"--full-name must have at most 200 characters. It has {len(full_name)}."
        )
    with _opened() as service:
        user = NewUser(
            name=name,
            password_hash=hash_password(_read_password()),
            role="admin" if role == "admin" else "user",
            full_name=full_name or None,
        )
        account = service.administration.create(user, Origin(actor=_COMMAND_LINE))
    typer.echo(f"User {account.name} made, role {account.role}.")


def _set_password(name: Annotated[str, typer.Argument(help="User name.")]) -> None:
    """Gives a user a new password and ends all its sessions.

    The password is asked for, or read from the first line of stdin. Exit code 2: there is no such user, or the password
    breaks a rule.
    """
    configure_logging("auth")
    from product_classifier.auth.audit import Origin
    from product_classifier.auth.passwords import hash_password
    from product_classifier.auth.users import UserChange

    with _opened() as service:
        service.administration.find(name)
        change = UserChange(password_hash=hash_password(_read_password()))
        account = service.administration.change(name, change, Origin(actor=_COMMAND_LINE))
    typer.echo(f"Password of {account.name} changed.")


def _read_password() -> str:
    if sys.stdin.isatty():
        password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        return password
    return sys.stdin.readline().rstrip("\r\n")


@contextmanager
def _opened() -> Iterator["AuthService"]:
    from product_classifier.auth.service import open_service

    service = open_service(get_settings(), make_users=False)
    try:
        yield service
    finally:
        service.close()
