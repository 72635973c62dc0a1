import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from auth_postgres import PostgresServer
from auth_testing import ADMIN_PASSWORD, ROUNDS
from sqlalchemy import inspect, text

from product_classifier.auth.audit import Origin
from product_classifier.auth.database import Database, database_url
from product_classifier.auth.migrate import migrate
from product_classifier.auth.service import AuthService, open_service
from product_classifier.auth.tables import Base
from product_classifier.core.errors import ConfigurationError, ProductClassifierError
from product_classifier.core.settings import Settings

Build = Callable[..., Settings]


def test_migrations_and_models_agree(service: AuthService) -> None:
    with service.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrating_again_changes_nothing(service: AuthService) -> None:
    migrate(service.database)
    with service.database.engine.connect() as connection:
        versions = connection.execute(text("SELECT version_num FROM alembic_version")).all()
    assert versions == [("0001",)]


def test_migrations_can_be_taken_back(service: AuthService) -> None:
    from alembic import command
    from alembic.config import Config

    import product_classifier.auth.migrations as scripts

    config = Config()
    config.set_main_option("script_location", str(Path(scripts.__file__).parent))
    with service.database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert inspect(service.database.engine).get_table_names() == ["alembic_version"]


def test_database_of_a_newer_version_is_refused(any_settings: Build) -> None:
    service = open_service(any_settings(), rounds=ROUNDS)
    with service.database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    service.close()
    with pytest.raises(ConfigurationError, match="newer version"):
        open_service(any_settings(), rounds=ROUNDS)


def test_sqlite_is_private_and_set_up(auth_settings: Build) -> None:
    settings = auth_settings()
    service = open_service(settings, rounds=ROUNDS)
    files = list(settings.auth_data_path.glob("auth.db*"))
    assert stat.S_IMODE(settings.auth_data_path.stat().st_mode) == 0o700
    private = [file for file in files if file.suffix != ".lock"]
    assert private
    assert {stat.S_IMODE(file.stat().st_mode) for file in private} == {0o600}
    with service.database.read() as db:
        assert db.scalar(text("PRAGMA journal_mode")) == "wal"
        assert db.scalar(text("PRAGMA foreign_keys")) == 1
        assert db.scalar(text("PRAGMA busy_timeout")) == 5000
    service.close()


@pytest.mark.parametrize(
    "url",
    ["nonsense-hunter2", "mysql://u:hunter2@h/n", "sqlite://", "sqlite:///:memory:", "http://x"],
)
def test_other_databases_are_refused_without_their_password(auth_settings: Build, url: str) -> None:
    with pytest.raises(ConfigurationError, match="AUTH_DATABASE_URL") as caught:
        open_service(auth_settings(auth_database_url=url), rounds=ROUNDS)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_spellings_of_postgres_mean_one_driver(auth_settings: Build, scheme: str) -> None:
    url = database_url(auth_settings(auth_database_url=f"{scheme}://u:hunter2@h/n"))
    assert url.drivername == "postgresql+psycopg"
    assert "hunter2" not in str(url)
    assert "hunter2" not in repr(url)


def test_unreachable_database_is_named_without_its_password(
    auth_settings: Build, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"postgresql://auth:hunter2@/users?host={tmp_path}"
    with pytest.raises(ProductClassifierError, match="can't be reached") as caught:
        open_service(auth_settings(auth_database_url=url), rounds=ROUNDS)
    assert caught.value.__cause__ is None
    assert "hunter2" not in str(caught.value) + caplog.text


def test_wrong_password_of_the_database_is_not_repeated(
    auth_settings: Build, postgres_server: PostgresServer
) -> None:
    url = postgres_server.url("postgres").replace(postgres_server.password, "hunter2")
    with pytest.raises(ProductClassifierError, match="can't be reached") as caught:
        open_service(auth_settings(auth_database_url=url), rounds=ROUNDS)
    assert "hunter2" not in str(caught.value)


_START = """
import sys
from product_classifier.auth.service import open_service
from product_classifier.core.settings import Settings
sys.stdin.readline()
service = open_service(Settings(_env_file=None), rounds=4)
print(service.administration.list_users(10, 0)[1])
service.close()
"""


def test_processes_that_start_together_migrate_once(any_settings: Build, tmp_path: Path) -> None:
    settings = any_settings()
    environment = {
        **os.environ,
        "AUTH_DATA_PATH": str(settings.auth_data_path),
        "ADMIN_PASSWORD": ADMIN_PASSWORD,
        "SMOKE_PASSWORD": "smoke-pass-word",
    }
    if settings.auth_database_url is not None:
        environment["AUTH_DATABASE_URL"] = settings.auth_database_url.get_secret_value()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=tmp_path,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outcomes = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outcomes
    assert [out.strip() for out, _ in outcomes] == ["2", "2", "2"]
    service = open_service(settings, rounds=ROUNDS)
    events = [entry["event"] for entry in service.administration.read_audit(50)]
    # The last opening, without SMOKE_PASSWORD, disables the machine account; nobody was made twice.
    assert events == ["user_changed", "user_created", "user_created"]
    service.close()


def test_writers_wait_for_each_other(any_settings: Build) -> None:
    """Two connections that read and then write: without a write lock from the start SQLite fails one of them."""
    from concurrent.futures import ThreadPoolExecutor

    from product_classifier.auth.users import NewUser

    services = [open_service(any_settings(), rounds=ROUNDS) for _ in range(2)]

    def create(number: int) -> None:
        user = NewUser(f"user{number}", "$2b$04$" + "." * 53)
        services[number % 2].administration.create(user, Origin())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(create, range(40)))
    assert services[0].administration.list_users(1, 0)[1] == 41
    for service in services:
        service.close()


def test_ping_says_when_the_tables_are_gone(auth_settings: Build, tmp_path: Path) -> None:
    from sqlalchemy.exc import OperationalError

    database = Database(database_url(auth_settings()))
    with pytest.raises(OperationalError):
        database.ping()
    database.close()
