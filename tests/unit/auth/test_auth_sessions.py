import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from auth_testing import ADMIN_PASSWORD, Clock
from sqlalchemy import func, select, text

from product_classifier.auth import sessions as sessions_module
from product_classifier.auth.audit import Origin
from product_classifier.auth.errors import RefreshRefused, SignInRefused
from product_classifier.auth.passwords import hash_password
from product_classifier.auth.service import DAY_SECONDS, AuthService
from product_classifier.auth.sessions import Started
from product_classifier.auth.tables import SessionRow
from product_classifier.auth.users import NewUser, UserChange

HERE = Origin(address="192.0.2.7")


def sign_in(service: AuthService) -> Started:
    return asyncio.run(service.sign_in.sign_in("admin", ADMIN_PASSWORD, HERE))


def refusal(service: AuthService, token: str) -> str:
    with pytest.raises(RefreshRefused) as caught:
        service.sign_in.refresh(token, HERE)
    return caught.value.reason


def test_each_refresh_gives_another_token_of_the_same_session(service: AuthService) -> None:
    started = sign_in(service)
    tokens = [started.refresh_token]
    for _ in range(4):
        following = service.sign_in.refresh(tokens[-1], HERE)
        assert following.session_id == started.session_id
        tokens.append(following.refresh_token)
    assert len(set(tokens)) == 5
    assert {len(token) for token in tokens} == {64}


def test_a_used_token_ends_the_whole_family(service: AuthService) -> None:
    first = sign_in(service)
    bystander = sign_in(service)
    second = service.sign_in.refresh(first.refresh_token, HERE)
    assert refusal(service, first.refresh_token) == "reused"
    assert refusal(service, second.refresh_token) == "revoked"
    assert service.administration.live_account(first.session_id) is None
    assert service.administration.live_account(bystander.session_id) is not None
    entry = service.administration.read_audit(1)[0]
    assert (entry["event"], entry["subject"]) == ("refresh_reused", "admin")


def test_of_twenty_parallel_uses_one_wins_and_the_reuse_ends_the_family(
    service: AuthService,
) -> None:
    started = sign_in(service)
    barrier = Barrier(20)

    def use(_: int) -> str:
        barrier.wait()
        try:
            return service.sign_in.refresh(started.refresh_token, HERE).refresh_token
        except RefreshRefused as error:
            return error.reason

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(use, range(20)))
    winners = [outcome for outcome in outcomes if len(outcome) == 64]
    assert len(winners) == 1
    assert set(outcomes) - set(winners) <= {"reused", "revoked"}
    assert outcomes.count("reused") >= 1
    assert refusal(service, winners[0]) == "revoked"


def test_tokens_are_nowhere_in_the_database(service: AuthService) -> None:
    started = sign_in(service)
    with service.database.read() as db:
        rows = repr(db.execute(text("SELECT * FROM sessions")).all())
    assert started.session_id in rows
    assert started.refresh_token not in rows
    assert started.refresh_token[:20] not in rows


@pytest.mark.parametrize(
    "token",
    ["", "x", "é" * 64, "A" * 64, "A" * 63 + "=", "A" * 10_000, "\ud800" * 64, "+" * 64],
    ids=["empty", "short", "accents", "unknown", "padded", "long", "surrogates", "plus"],
)
def test_rubbish_is_no_refresh_token(service: AuthService, token: str) -> None:
    assert refusal(service, token) == "unknown"


def test_a_token_has_one_spelling(service: AuthService) -> None:
    token = sign_in(service).refresh_token
    while not {"-", "_"} & set(token):
        token = service.sign_in.refresh(token, HERE).refresh_token
    assert refusal(service, token.replace("-", "+").replace("_", "/")) == "unknown"
    assert service.sign_in.refresh(token, HERE).refresh_token != token


def test_who_knows_a_session_id_can_not_end_it(service: AuthService) -> None:
    started = sign_in(service)
    assert refusal(service, started.session_id * 2) == "unknown"
    assert service.administration.live_account(started.session_id) is not None


def test_refresh_tokens_expire_and_each_use_extends_the_session(
    service: AuthService, clock: Clock
) -> None:
    started = sign_in(service)
    clock.now += 6 * DAY_SECONDS
    second = service.sign_in.refresh(started.refresh_token, HERE)
    clock.now += 6 * DAY_SECONDS
    third = service.sign_in.refresh(second.refresh_token, HERE)
    clock.now += 7 * DAY_SECONDS
    assert refusal(service, third.refresh_token) == "expired"
    assert service.administration.live_account(started.session_id) is None


def test_signing_out_ends_the_session(service: AuthService) -> None:
    started = sign_in(service)
    service.sign_in.sign_out(started.session_id, Origin(actor="admin"))
    assert refusal(service, started.refresh_token) == "revoked"
    assert service.administration.read_audit(1)[0]["event"] == "logout"


def test_a_disabled_user_gets_no_further_token(service: AuthService) -> None:
    service.administration.create(NewUser("bob", hash_password("bobs-password", 4)), HERE)
    started = asyncio.run(service.sign_in.sign_in("bob", "bobs-password", HERE))
    with service.database.write() as db:
        db.execute(text("UPDATE users SET active = :no WHERE name = 'bob'"), {"no": False})
    assert refusal(service, started.refresh_token) == "disabled"
    assert service.administration.live_account(started.session_id) is None


def test_a_new_role_is_in_the_next_session(service: AuthService) -> None:
    service.administration.create(NewUser("bob", hash_password("bobs-password", 4)), HERE)
    service.administration.change("bob", UserChange(role="admin"), HERE)
    started = asyncio.run(service.sign_in.sign_in("bob", "bobs-password", HERE))
    assert started.account.role == "admin"


def test_no_session_starts_with_a_password_that_was_just_replaced(service: AuthService) -> None:
    known = service.sign_in._credentials("admin")
    assert known is not None
    change = UserChange(password_hash=hash_password("another-pass", 4))
    service.administration.change("admin", change, HERE)
    with pytest.raises(SignInRefused), service.database.write() as db:
        service.sessions.start(db, *known)


def test_clean_up_removes_dead_sessions_only(service: AuthService, clock: Clock) -> None:
    ended, expired = sign_in(service), sign_in(service)
    service.sign_in.sign_out(ended.session_id, HERE)
    service.clean_up()
    clock.now += 2 * DAY_SECONDS
    live = sign_in(service)
    service.clean_up()
    with service.database.read() as db:
        ids = set(db.scalars(select(SessionRow.id)))
    assert ids == {expired.session_id, live.session_id}
    clock.now += 6 * DAY_SECONDS
    service.clean_up()
    with service.database.read() as db:
        assert set(db.scalars(select(SessionRow.id))) == {live.session_id}


def test_a_user_has_a_bounded_number_of_sessions(
    service: AuthService, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "MAX_SESSIONS_PER_USER", 3)
    started = []
    for _ in range(5):
        clock.now += 1
        started.append(sign_in(service))
    with service.database.read() as db:
        assert db.scalar(select(func.count()).select_from(SessionRow)) == 3
    live = [service.administration.live_account(s.session_id) is not None for s in started]
    assert live == [False, False, True, True, True]
