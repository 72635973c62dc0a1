"""The door to the database: SQLite in AUTH_DATA_PATH, or Postgres by AUTH_DATABASE_URL.

Sessions come in two kinds, since SQLite can't turn a reading transaction into a writing one while another process
writes (it fails at once, whatever the busy timeout): `write()` takes the write lock at its beginning.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session, sessionmaker

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings

SQLITE_FILE = "auth.db"
BUSY_MILLISECONDS = 5000
CONNECT_SECONDS = 5
POOL_SIZE = 10
_READ = "auth_read_only"


def database_url(settings: Settings) -> URL:
    """Gives the database's address; its text shows no password.

    Raises:
        ConfigurationError: AUTH_DATABASE_URL is no address of SQLite or Postgres.
    """
    if settings.auth_database_url is None:
        path = settings.auth_data_path.absolute() / SQLITE_FILE
        return URL.create("sqlite", database=str(path))
    try:
        url = make_url(settings.auth_database_url.get_secret_value())
        kind = url.get_backend_name()
    except (ArgumentError, ValueError):
        kind = ""
    if kind in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if kind == "sqlite" and url.database not in (None, "", ":memory:"):
        return url.set(drivername="sqlite")
    raise ConfigurationError(
        "AUTH_DATABASE_URL can't be used. Expected postgresql+psycopg://user:password@host/name or "
        f"sqlite:////absolute/path. Received: {'another kind of' if kind else 'no'} database address."
    )


class Database:
    """An engine and its two kinds of sessions. Safe to share between threads."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.engine = _sqlite_engine(url) if url.drivername == "sqlite" else _postgres_engine(url)
        self._writing = sessionmaker(self.engine, expire_on_commit=False)
        self._reading = sessionmaker(
            self.engine.execution_options(**{_READ: True}), expire_on_commit=False
        )

    @property
    def is_sqlite(self) -> bool:
        """Says which of the two databases this is."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Opens a session that only reads."""
        with self._reading.begin() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Opens a session that is committed at the block's end, or rolled back where it raises."""
        with self._writing.begin() as session:
            yield session

    def ping(self) -> None:
        """Asks the database for an answer.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: it gives none.
        """
        with self.read() as session:
            session.execute(text("SELECT id FROM users LIMIT 1"))

    def close(self) -> None:
        """Closes the connections."""
        self.engine.dispose()


def _sqlite_engine(url: URL) -> Engine:
    path = Path(str(url.database))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Made here, so that it is private from its first byte; SQLite gives its other files the same mode.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = create_engine(
        url, hide_parameters=True, pool_size=POOL_SIZE, pool_timeout=CONNECT_SECONDS
    )
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_MILLISECONDS}",
        "journal_mode=WAL",
        "foreign_keys=ON",
        "synchronous=NORMAL",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get(_READ, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _postgres_engine(url: URL) -> Engine:
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS}
    if "options" not in url.query:
        arguments["options"] = "-c statement_timeout=10000 -c lock_timeout=5000"
    return create_engine(
        url,
        hide_parameters=True,
        pool_size=POOL_SIZE,
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=True,
        connect_args=arguments,
    )
