import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from auth_testing import ADMIN_PASSWORD, ROUNDS
from fastapi.testclient import TestClient

from product_classifier.auth.app import create_app
from product_classifier.auth.audit import Origin
from product_classifier.auth.errors import SignInRefused
from product_classifier.auth.passwords import hash_password
from product_classifier.auth.service import AuthService, open_service
from product_classifier.auth.users import NewUser, UserChange
from product_classifier.core.errors import ConfigurationError, ExitCode
from product_classifier.core.settings import Settings

Build = Callable[..., Settings]
SMOKE = "smoke-password-1"


@contextmanager
def opened(settings: Settings) -> Iterator[AuthService]:
    service = open_service(settings, rounds=ROUNDS)
    try:
        yield service
    finally:
        service.close()


def may_sign_in(service: AuthService, name: str, password: str) -> bool:
    try:
        asyncio.run(service.sign_in.sign_in(name, password, Origin(address="192.0.2.1")))
    except SignInRefused:
        return False
    return True


@pytest.mark.parametrize(
    "password", [None, "short", "changeme", "<password>", "x" * 80, "é" * 40, "a\0bcdefgh"]
)
def test_first_start_needs_a_real_admin_password(any_settings: Build, password: str | None) -> None:
    with pytest.raises(ConfigurationError, match="ADMIN_PASSWORD") as caught:
        open_service(any_settings(admin_password=password), rounds=ROUNDS)
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    assert password is None or password not in str(caught.value)
    with opened(any_settings()) as service:  # nothing half-made was left behind
        assert may_sign_in(service, "admin", ADMIN_PASSWORD)


def test_later_starts_need_no_admin_password_and_change_none(any_settings: Build) -> None:
    with opened(any_settings()):
        pass
    with opened(any_settings(admin_password=None)) as service:
        assert may_sign_in(service, "admin", ADMIN_PASSWORD)
    with opened(any_settings(admin_user="other", admin_password="other-password")) as service:
        assert not may_sign_in(service, "other", "other-password")
        assert may_sign_in(service, "admin", ADMIN_PASSWORD)
        assert service.administration.list_users(9, 0)[1] == 1


def test_test_user_is_made_once_and_keeps_its_own_password(any_settings: Build) -> None:
    values = {"test_user": "Ada", "test_user_fullname": "Ada L", "test_user_password": "adas-pass"}
    with opened(any_settings(**values)) as service:
        account = service.administration.find("ada")
        assert (account.full_name, account.role, account.machine) == ("Ada L", "user", False)
        change = UserChange(password_hash=hash_password("her-own-pass", ROUNDS))
        service.administration.change("ada", change, Origin())
    with opened(any_settings(**values)) as service:
        assert may_sign_in(service, "ada", "her-own-pass")
        assert not may_sign_in(service, "ada", "adas-pass")


def test_machine_account_follows_its_setting(any_settings: Build) -> None:
    with opened(any_settings(smoke_password=SMOKE)) as service:
        account = service.administration.find("smoke")
        assert (account.role, account.machine) == ("user", True)
        assert may_sign_in(service, "smoke", SMOKE)
        first = service.administration.find("smoke")
    with opened(any_settings(smoke_password=SMOKE)) as service:
        assert service.administration.find("smoke") == first  # nothing to do: nothing done
    with opened(any_settings(smoke_password="another-smoke-1")) as service:
        assert not may_sign_in(service, "smoke", SMOKE)
        assert may_sign_in(service, "smoke", "another-smoke-1")
    with opened(any_settings()) as service:
        assert not service.administration.find("smoke").active
        assert not may_sign_in(service, "smoke", "another-smoke-1")
    with opened(any_settings(smoke_password=SMOKE)) as service:
        assert may_sign_in(service, "smoke", SMOKE)
    with opened(any_settings(smoke_user="prober", smoke_password=SMOKE)) as service:
        assert not service.administration.find("smoke").active
        assert may_sign_in(service, "prober", SMOKE)


def test_machine_account_never_takes_a_persons_account_over(any_settings: Build) -> None:
    with opened(any_settings()) as service:
        service.administration.create(NewUser("Bob", hash_password("bobs-pass", 4)), Origin())
    with pytest.raises(ConfigurationError, match="SMOKE_USER"):
        open_service(any_settings(smoke_user="bob", smoke_password=SMOKE), rounds=ROUNDS)
    with opened(any_settings()) as service:
        assert may_sign_in(service, "bob", "bobs-pass")


def test_machine_account_can_not_be_made_an_administrator(auth_settings: Build) -> None:
    app = create_app(auth_settings(smoke_password=SMOKE), rounds=ROUNDS)
    with TestClient(app) as client:
        form = {"username": "admin", "password": ADMIN_PASSWORD}
        token = client.post("/token", data=form).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        answer = client.patch("/users/smoke", json={"role": "admin"}, headers=headers)
    assert answer.status_code == 409


@pytest.mark.parametrize(
    ("values", "setting"),
    [
        ({"algorithm": "HS256"}, "SECRET_KEY"),
        ({"algorithm": "HS256", "secret_key": "short-hunter2"}, "SECRET_KEY"),
        ({"algorithm": "HS256", "secret_key": "changeme-" * 5}, "SECRET_KEY"),
        ({"smoke_password": "hunter2"}, "SMOKE_PASSWORD"),
        ({"smoke_password": "changeme"}, "SMOKE_PASSWORD"),
        ({"smoke_password": SMOKE, "smoke_user": "Admin"}, "ADMIN_USER and SMOKE_USER"),
        ({"admin_user": "a b"}, "ADMIN_USER"),
        ({"admin_user": "me"}, "ADMIN_USER"),
        ({"smoke_user": "é"}, "SMOKE_USER"),
        ({"test_user": "a/b", "test_user_password": "long-enough-1"}, "TEST_USER"),
        ({"test_user": "ada", "test_user_password": "hunter2"}, "TEST_USER_PASSWORD"),
        ({"test_user": "ada"}, "TEST_USER_PASSWORD"),
        ({"trusted_proxies": "proxy"}, "TRUSTED_PROXIES"),
        ({"anonymous_rate_limit": "often"}, "ANONYMOUS_RATE_LIMIT"),
        ({"cors_allow_origins": "*"}, "CORS_ALLOW_ORIGINS"),
    ],
)
def test_a_setting_that_can_not_be_used_stops_the_app_with_its_name(
    auth_settings: Build, values: dict[str, Any], setting: str
) -> None:
    settings = auth_settings(**values)
    with pytest.raises(ConfigurationError, match=setting) as caught:
        create_app(settings)
    assert "hunter2" not in str(caught.value)
    assert not settings.auth_data_path.exists()


def test_two_settings_that_name_one_user_are_refused(auth_settings: Build) -> None:
    values = {"test_user": "ADMIN", "test_user_password": "long-enough-1"}
    with pytest.raises(ConfigurationError, match="ADMIN_USER and TEST_USER"):
        create_app(auth_settings(**values))
