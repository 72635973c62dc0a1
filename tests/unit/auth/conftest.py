"""Services of auth on both databases, and a client for the app."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from auth_postgres import PostgresServer, run_postgres
from auth_testing import ADMIN_PASSWORD, ROUNDS, Clock
from fastapi.testclient import TestClient

from product_classifier.auth.app import create_app
from product_classifier.auth.service import AuthService, open_service
from product_classifier.core.settings import Settings


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with run_postgres() as server:
        yield server


@pytest.fixture
def auth_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Builds settings with SQLite in a folder with odd characters in its name."""

    def build(**values: Any) -> Settings:
        defaults = {
            "auth_data_path": tmp_path / "50% of auth",
            "admin_password": ADMIN_PASSWORD,
            "anonymous_rate_limit": "100000/minute",
        }
        return Settings(_env_file=None, **{**defaults, **values})

    return build


@pytest.fixture(params=["sqlite", "postgres"])
def any_settings(
    request: pytest.FixtureRequest, auth_settings: Callable[..., Settings]
) -> Iterator[Callable[..., Settings]]:
    """Builds settings for each of the two databases."""
    if request.param == "sqlite":
        yield auth_settings
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with server.new_database() as url:
        yield lambda **values: auth_settings(auth_database_url=url, **values)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(any_settings: Callable[..., Settings], clock: Clock) -> Iterator[AuthService]:
    """An open service on each database, with the administrator `admin`."""
    opened = open_service(any_settings(), rounds=ROUNDS, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def client(auth_settings: Callable[..., Settings]) -> Iterator[TestClient]:
    app = create_app(
        auth_settings(test_user="Ada", test_user_password="ada-password-1"), rounds=ROUNDS
    )
    with TestClient(app) as test_client:
        yield test_client
