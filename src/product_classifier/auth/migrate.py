"""Brings the database to this version's tables, one process at a time."""

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from product_classifier.auth.database import Database
from product_classifier.core.errors import ConfigurationError, ProductClassifierError

logger = logging.getLogger(__name__)

LOCK_SECONDS = 120
_ADVISORY_LOCK = 0x70632D61757468  # "pc-auth": any number that others are unlikely to use
_SCRIPTS = Path(__file__).parent / "migrations"


def migrate(database: Database) -> None:
    """Runs the migrations that are missing. Call it under `starting`.

    Raises:
        ConfigurationError: the database was written by a newer version.
    """
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    with database.engine.begin() as connection:
        if not database.is_sqlite:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise ConfigurationError(
                "The database of users was written by a newer version of this program, or by another one: "
                f"{error}"
            ) from error


@contextmanager
def starting(database: Database) -> Iterator[None]:
    """Holds the lock under which a process migrates and makes the first users; another one waits.

    Raises:
        ProductClassifierError: the lock stayed taken, or the database can't be reached.
    """
    if database.is_sqlite:
        with _file_lock(Path(f"{database.url.database}.lock")):
            yield
        return
    try:
        connection = database.engine.connect()
    except SQLAlchemyError as error:
        raise ProductClassifierError(
            f"The database of users at {database.url.render_as_string(hide_password=True)} "
            f"can't be reached ({type(error).__name__})."
        ) from None  # the driver's text may repeat the address with its password
    with connection, connection.begin():
        # One transaction's lock, not the session's: it works through a pooler and ends with the process.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        yield


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    deadline = time.monotonic() + LOCK_SECONDS
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ProductClassifierError(
                        f"Another auth has been starting for {LOCK_SECONDS} s and holds {path}."
                    ) from None
                time.sleep(0.05)
        yield
