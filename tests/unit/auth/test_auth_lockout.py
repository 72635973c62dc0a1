import asyncio
from collections.abc import Callable

import pytest
from auth_testing import ADMIN_PASSWORD, ROUNDS, Clock
from sqlalchemy import func, select

from product_classifier.auth.audit import Origin
from product_classifier.auth.errors import HashingBusy, LockedOut, SignInRefused
from product_classifier.auth.lockout import attempt_key
from product_classifier.auth.service import AuthService, open_service
from product_classifier.auth.tables import LoginFailureRow, LoginLockRow
from product_classifier.core.settings import Settings

HERE = Origin(address="192.0.2.7")
THERE = Origin(address="198.51.100.9")


def attempt(service: AuthService, name: str, password: str, origin: Origin = HERE) -> str:
    try:
        asyncio.run(service.sign_in.sign_in(name, password, origin))
    except SignInRefused:
        return "refused"
    except LockedOut as error:
        return f"locked {error.retry_seconds}"
    return "in"


@pytest.mark.parametrize("name", ["admin", "nobody", "\0 \ud800", "x" * 5000])
def test_three_failures_lock_known_and_unknown_names_alike(service: AuthService, name: str) -> None:
    answers = [attempt(service, name, "wrong") for _ in range(5)]
    assert answers == ["refused"] * 3 + ["locked 300"] * 2


def test_a_locked_pair_is_refused_with_the_right_password_until_time_is_up(
    service: AuthService, clock: Clock
) -> None:
    for _ in range(3):
        attempt(service, "Admin", "wrong")
    clock.now += 299.5
    assert attempt(service, "admin", ADMIN_PASSWORD) == "locked 1"
    clock.now += 0.5
    assert attempt(service, "admin", ADMIN_PASSWORD) == "in"


def test_another_address_and_another_name_are_not_locked(service: AuthService) -> None:
    for _ in range(3):
        attempt(service, "admin", "wrong")
    assert attempt(service, "admin", ADMIN_PASSWORD, THERE) == "in"
    assert attempt(service, "other", "wrong") == "refused"


def test_failures_count_within_any_window_not_a_fixed_one(
    service: AuthService, clock: Clock
) -> None:
    for seconds in (0, 119, 2):
        clock.now += seconds
        assert attempt(service, "admin", "wrong") == "refused"
    clock.now += 1  # the first failure is 122 s old, the others 3 and 1
    assert attempt(service, "admin", "wrong") == "refused"
    assert attempt(service, "admin", "wrong") == "locked 300"


def test_success_forgets_failures(service: AuthService) -> None:
    for password in ("wrong", "wrong", ADMIN_PASSWORD, "wrong", "wrong"):
        attempt(service, "admin", password)
    assert attempt(service, "admin", ADMIN_PASSWORD) == "in"


def test_guesses_side_by_side_are_no_more_than_guesses_in_a_row(service: AuthService) -> None:
    async def guess(count: int) -> list[object]:
        return await asyncio.gather(
            *(service.sign_in.sign_in("admin", "wrong", HERE) for _ in range(count)),
            return_exceptions=True,
        )

    outcomes = asyncio.run(guess(service.hasher.workers + 8))
    assert sum(isinstance(outcome, SignInRefused) for outcome in outcomes) == 3
    assert not any(isinstance(outcome, HashingBusy) for outcome in outcomes)
    assert attempt(service, "admin", ADMIN_PASSWORD).startswith("locked")


def test_right_passwords_side_by_side_all_get_in(service: AuthService) -> None:
    async def enter(count: int) -> None:
        await asyncio.gather(
            *(service.sign_in.sign_in("admin", ADMIN_PASSWORD, HERE) for _ in range(count))
        )

    asyncio.run(enter(service.hasher.workers + 8))
    assert attempt(service, "admin", ADMIN_PASSWORD) == "in"


def test_an_attempt_that_breaks_counts_as_nothing_and_holds_nobody_up(
    service: AuthService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: object) -> bool:
        raise RuntimeError("no threads")

    with monkeypatch.context() as patch:
        patch.setattr(service.hasher, "verify", breaks)
        for _ in range(5):
            with pytest.raises(RuntimeError):
                attempt(service, "admin", "any")
    assert service.hasher.waiting == 0
    assert attempt(service, "admin", ADMIN_PASSWORD) == "in"


def test_lockout_outlives_a_restart(any_settings: Callable[..., Settings], clock: Clock) -> None:
    service = open_service(any_settings(), rounds=ROUNDS, clock=clock)
    for _ in range(3):
        attempt(service, "admin", "wrong")
    service.close()
    service = open_service(any_settings(), rounds=ROUNDS, clock=clock)
    assert attempt(service, "admin", ADMIN_PASSWORD) == "locked 300"
    service.close()


def test_no_failures_allowed_means_no_lockout(auth_settings: Callable[..., Settings]) -> None:
    service = open_service(auth_settings(login_lockout_failures=0), rounds=ROUNDS)
    assert {attempt(service, "admin", "wrong") for _ in range(8)} == {"refused"}
    assert attempt(service, "admin", ADMIN_PASSWORD) == "in"
    service.close()


def test_clean_up_leaves_what_still_counts(service: AuthService, clock: Clock) -> None:
    for _ in range(3):
        attempt(service, "admin", "wrong")
    attempt(service, "other", "wrong")
    service.clean_up()
    assert _rows(service) == (1, 1)
    clock.now += 121
    service.clean_up()
    assert _rows(service) == (0, 1)
    clock.now += 200
    service.clean_up()
    assert _rows(service) == (0, 0)


def _rows(service: AuthService) -> tuple[int | None, int | None]:
    with service.database.read() as db:
        return (
            db.scalar(select(func.count()).select_from(LoginFailureRow)),
            db.scalar(select(func.count()).select_from(LoginLockRow)),
        )


def test_a_typed_name_is_kept_nowhere(
    service: AuthService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for _ in range(4):
        attempt(service, "My-Real-Password1", "x")
    with service.database.read() as db:
        keys = repr([row.attempt_key for row in db.scalars(select(LoginLockRow))])
    trail = repr(service.administration.read_audit(50))
    logged = repr([vars(record) for record in caplog.records])
    assert "login_failed" in trail
    assert "locked_out" in trail
    assert "my-real-password1" not in (keys + trail + logged).lower()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("unknown", "unknown", True),
    ],
)
def test_one_network_of_ipv6_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (attempt_key("a", one) == attempt_key("A", other)) is same
