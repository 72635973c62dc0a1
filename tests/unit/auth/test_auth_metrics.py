"""What auth tells Prometheus: as docs/metrics.md says, and true also where the database hangs."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from auth_testing import ROUNDS, Clock, bearer, sign_in
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from metrics_page import documented, exposed, series
from product_classifier.auth.app import create_app
from product_classifier.auth.database import Database
from product_classifier.auth.readiness import STALE_SECONDS, ReadinessWatch
from product_classifier.auth.service import AuthService
from product_classifier.core.settings import Settings

LIMITED = 'product_classifier_rate_limited_total{{scope="{}"}}'
REJECTIONS = "product_classifier_token_rejections_total"
REJECTED = f'{REJECTIONS}{{{{reason="{{}}"}}}}'


def scrape(client: TestClient) -> dict[str, float]:
    return series(client.get("/metrics").text)


def test_every_metric_is_as_the_page_says(client: TestClient) -> None:
    assert exposed(client.get("/metrics").text) == documented("auth")


def test_a_lockout_counts_as_that_and_not_as_a_refused_token(client: TestClient) -> None:
    statuses = []
    while 429 not in statuses and len(statuses) < 20:
        answer = client.post("/token", data={"username": "ada", "password": "wrong"})
        statuses.append(answer.status_code)
    assert statuses[-1] == 429
    assert answer.json()["scope"] == "lockout"
    shown = scrape(client)
    assert shown[LIMITED.format("lockout")] == 1
    assert shown[LIMITED.format("anonymous")] == 0
    assert shown[REJECTED.format("missing")] == 0
    failed = 'product_classifier_unauthorized_requests_total{handler="/token"}'
    assert shown[failed] == statuses.count(401)


def test_who_floods_without_a_token_is_not_locked_out(
    auth_settings: Callable[..., Settings],
) -> None:
    app = create_app(auth_settings(anonymous_rate_limit="2/hour"), rounds=ROUNDS)
    with TestClient(app) as client:
        answers = [client.post("/token") for _ in range(3)]
        shown = scrape(client)
    assert [answer.status_code for answer in answers] == [422, 422, 429]
    assert answers[-1].json()["scope"] == "anonymous"
    assert [shown[LIMITED.format(who)] for who in ("anonymous", "lockout", "user")] == [1, 0, 0]
    assert shown['product_classifier_auth_logins_total{outcome="locked_out"}'] == 0


def test_a_lockout_of_somebody_signed_in_counts_as_that(client: TestClient) -> None:
    mine = bearer(sign_in(client))
    body = {"old_password": "wrong", "new_password": "new-password-1"}
    statuses = []
    while 429 not in statuses and len(statuses) < 20:
        answer = client.post("/users/me/password", json=body, headers=mine)
        statuses.append(answer.status_code)
    assert statuses[-1] == 429
    shown = scrape(client)
    assert [shown[LIMITED.format(who)] for who in ("anonymous", "lockout", "user")] == [0, 1, 0]


def test_a_full_queue_is_no_limit_of_the_caller(client: TestClient) -> None:
    service: AuthService = client.app.state.service  # type: ignore[attr-defined]
    with ExitStack() as places:
        for _ in range(service.hasher.workers + 8):
            places.enter_context(service.hasher.place())
        answer = client.post("/token", data={"username": "ada", "password": "wrong"})
        shown = scrape(client)
    assert answer.status_code == 503
    assert shown['product_classifier_auth_logins_total{outcome="busy"}'] == 1
    assert {shown[LIMITED.format(who)] for who in ("anonymous", "lockout", "user")} == {0}


def test_a_token_sent_where_none_is_needed_is_not_refused(client: TestClient) -> None:
    tokens = sign_in(client)
    forged = {"Authorization": "Bearer forged"}
    again = {"refresh_token": tokens["refresh_token"]}
    assert client.post("/token/refresh", json=again, headers=forged).status_code == 200
    assert client.get("/health", headers=forged).status_code == 200
    refused = {name: count for name, count in scrape(client).items() if REJECTIONS in name}
    assert len(refused) > 5
    assert set(refused.values()) == {0}
    assert client.get("/verify-token", headers=forged).status_code == 401  # this page looks itself
    shown = scrape(client)
    assert sum(count for name, count in shown.items() if REJECTIONS in name) == 1


def test_tokens_of_ended_sessions_and_missing_ones_are_counted(client: TestClient) -> None:
    tokens = sign_in(client)
    client.post("/logout", headers=bearer(tokens))
    assert client.get("/users", headers=bearer(tokens)).status_code == 401
    assert client.get("/verify-token").status_code == 401
    shown = scrape(client)
    assert shown[REJECTED.format("revoked")] == 1
    assert shown[REJECTED.format("missing")] == 1


def test_ready_is_shown_as_it_is(
    auth_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("product_classifier.auth.readiness.LOOK_SECONDS", 0.02)
    app = create_app(auth_settings(), rounds=ROUNDS)
    looked = threading.Semaphore(0)

    def broken(_database: Database) -> None:
        looked.release()
        raise OperationalError("SELECT", {}, Exception("gone"))

    with TestClient(app) as client:
        assert client.get("/ready").status_code == 200
        assert scrape(client)["product_classifier_ready"] == 1
        monkeypatch.setattr(Database, "ping", broken)
        for _ in range(2):  # the second look begins after the first was noted
            assert looked.acquire(timeout=60)
        assert scrape(client)["product_classifier_ready"] == 0
        assert client.get("/ready").status_code == 503


def test_a_look_that_does_not_come_back_makes_it_not_ready() -> None:
    clock, hanging = Clock(), threading.Event()

    def check() -> bool:
        return True if clock.now == start else hanging.wait(120)

    async def run() -> None:
        watch = ReadinessWatch(check, clock)
        assert not watch.ready
        await watch.look()
        assert watch.ready
        clock.now += STALE_SECONDS - 1
        look = asyncio.create_task(watch.look())
        await asyncio.sleep(0)
        assert watch.ready
        clock.now += 2
        assert not watch.ready
        hanging.set()
        await look
        assert watch.ready

    start = clock.now
    asyncio.run(run())


def test_a_look_that_fails_is_no_end_of_looking(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([RuntimeError("odd"), True])

    def check() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def run() -> list[bool]:
        watch = ReadinessWatch(check)
        seen = []
        for _ in range(2):
            await watch.look()
            seen.append(watch.ready)
        return seen

    assert asyncio.run(run()) == [False, True]
    assert "met a fault" in caplog.text


def test_a_look_that_ends_while_a_scrape_asks_does_no_harm() -> None:
    broken = asyncio.Event()

    def clock() -> float:
        if broken.is_set():
            asyncio.run(watch.look())
        return 1.0

    watch = ReadinessWatch(lambda: not broken.is_set(), clock)
    asyncio.run(watch.look())
    broken.set()
    assert watch.ready  # as it was when it was asked
    assert not watch.ready
