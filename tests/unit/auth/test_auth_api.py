import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from auth_postgres import PostgresServer
from auth_testing import ADMIN_PASSWORD, ROUNDS, bearer, sign_in
from fastapi.testclient import TestClient

from product_classifier.auth.app import create_app
from product_classifier.auth.keys import KeyStore
from product_classifier.auth.service import AuthService
from product_classifier.core.settings import Settings
from product_classifier.web.tokens import TokenVerifier, VerificationKeys

Build = Callable[..., Settings]
Change = Callable[[TestClient], None]

LOGINS = 16


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Checks the one shape of errors."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "instance", "request_id"} <= body.keys()
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


def metric(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


def login(client: TestClient, name: str, password: str) -> httpx.Response:
    return client.post("/token", data={"username": name, "password": password})


def test_sign_in_gives_tokens_that_the_published_keys_verify(client: TestClient) -> None:
    answer = login(client, "ADA", "ada-password-1")
    assert answer.headers["cache-control"] == "no-store"
    tokens = answer.json()
    assert tokens["token_type"] == "bearer"
    assert (tokens["expires_in"], tokens["refresh_expires_in"]) == (1800, 7 * 86_400)
    jwks = client.get("/.well-known/jwks.json")
    assert jwks.headers["cache-control"] == "public, max-age=60"
    verifier = TokenVerifier(VerificationKeys.from_jwks(jwks.json()))
    claims = verifier.verify(tokens["access_token"])
    assert (claims.subject, claims.role) == ("Ada", "user")
    assert claims.expires_at - claims.issued_at == 1800


@pytest.mark.parametrize(
    ("name", "password"),
    [("admin", "wrong"), ("nobody", ADMIN_PASSWORD), ("a\0b", "x\0"), ("ä" * 500, "ö" * 500)],
)
def test_wrong_sign_ins_get_one_and_the_same_answer(
    client: TestClient, name: str, password: str
) -> None:
    answer = login(client, name, password)
    body = problem(answer, 401)
    assert body["detail"] == "User name or password is wrong."
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_disabled_user_is_told_what_an_unknown_one_is(client: TestClient) -> None:
    admin = bearer(sign_in(client))
    assert client.patch("/users/ada", json={"active": False}, headers=admin).status_code == 200
    disabled, unknown = login(client, "ada", "ada-password-1"), login(client, "zed", "any")
    assert problem(disabled, 401)["detail"] == problem(unknown, 401)["detail"]
    assert disabled.headers["www-authenticate"] == unknown.headers["www-authenticate"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"username=admin",
        b"grant_type=other&username=a&password=b",
        b"\xff\xfe=%ED%A0%80",
        b"&" * 900,
    ],
)
def test_odd_forms_are_unprocessable(client: TestClient, body: bytes) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post("/token", content=body, headers=headers)
    assert problem(answer, 422)["errors"]


def test_a_form_may_not_be_longer_than_16_kb(client: TestClient) -> None:
    answer = login(client, "admin", "x" * 17_000)
    problem(answer, 413)


def test_lockout_is_429_with_the_time_to_wait(client: TestClient) -> None:
    for _ in range(3):
        problem(login(client, "ada", "wrong"), 401)
    known = login(client, "ada", "ada-password-1")
    assert 290 <= int(known.headers["retry-after"]) <= 300
    for _ in range(3):
        login(client, "nobody", "wrong")
    unknown = login(client, "nobody", "wrong")
    assert problem(known, 429)["detail"] == problem(unknown, 429)["detail"]
    assert metric(client, "product_classifier_auth_lockouts_total") == 2
    assert metric(client, 'product_classifier_auth_logins_total{outcome="locked_out"}') == 2
    assert metric(client, 'product_classifier_auth_logins_total{outcome="refused"}') == 6


def test_a_trusted_proxy_hands_the_callers_address_on(auth_settings: Build) -> None:
    app = create_app(auth_settings(trusted_proxies="192.0.2.0/24"), rounds=ROUNDS)
    with TestClient(app, client=("192.0.2.1", 1)) as proxy:

        def guess(address: str) -> int:
            form = {"username": "admin", "password": "wrong"}
            headers = {"X-Forwarded-For": address}
            return proxy.post("/token", data=form, headers=headers).status_code

        assert [guess("198.51.100.1") for _ in range(4)] == [401, 401, 401, 429]
        assert guess("198.51.100.2") == 401


def test_an_untrusted_peer_can_not_choose_its_address(auth_settings: Build) -> None:
    app = create_app(auth_settings(trusted_proxies="192.0.2.0/24"), rounds=ROUNDS)
    with TestClient(app, client=("203.0.113.5", 1)) as caller:
        form = {"username": "admin", "password": "wrong"}
        answers = [
            caller.post("/token", data=form, headers={"X-Forwarded-For": f"198.51.100.{n}"})
            for n in range(4)
        ]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]


def test_a_full_queue_is_503_at_once_and_health_answers(client: TestClient) -> None:
    service: AuthService = client.app.state.service  # type: ignore[attr-defined]
    places = [service.hasher.place() for _ in range(service.hasher.workers + 8)]
    for place in places:
        place.__enter__()
    answer = login(client, "ada", "ada-password-1")
    problem(answer, 503)
    assert int(answer.headers["retry-after"]) >= 1
    assert client.get("/health").json() == {"status": "ok"}
    waiting = metric(client, "product_classifier_auth_hashing_waiting")
    assert waiting == len(places)
    for place in places:
        place.__exit__(None, None, None)
    assert login(client, "ada", "ada-password-1").status_code == 200


def test_health_answers_while_sixteen_clients_sign_in(auth_settings: Build) -> None:
    """Not a benchmark: it only shows that hashing does not hold the event loop."""
    app = create_app(auth_settings(login_lockout_failures=0, login_queue=LOGINS), rounds=12)

    async def measure() -> tuple[list[int], int]:
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://auth") as caller,
        ):
            form = {"username": "admin", "password": ADMIN_PASSWORD}
            logins = [asyncio.create_task(caller.post("/token", data=form)) for _ in range(LOGINS)]
            answers = 0
            while not all(task.done() for task in logins):
                assert (await caller.get("/health")).status_code == 200
                answers += 1
                await asyncio.sleep(0.002)
            return [task.result().status_code for task in logins], answers

    statuses, answers = asyncio.run(measure())
    assert statuses == [200] * LOGINS
    assert answers > 2 * LOGINS  # on the event loop there would be one at most for each hash


def test_refresh_rotates_and_reuse_ends_the_session(client: TestClient) -> None:
    first = sign_in(client)
    answer = client.post("/token/refresh", json={"refresh_token": first["refresh_token"]})
    second = answer.json()
    assert second["refresh_token"] != first["refresh_token"]
    assert client.get("/verify-token", headers=bearer(second)).status_code == 200
    for tokens in (first, second):
        again = client.post("/token/refresh", json={"refresh_token": tokens["refresh_token"]})
        problem(again, 401)
    for tokens in (first, second):
        body = problem(client.get("/verify-token", headers=bearer(tokens)), 401)
        assert body["reason"] == "revoked"
    for outcome in ("success", "reused", "revoked"):
        name = f'product_classifier_auth_refreshes_total{{outcome="{outcome}"}}'
        assert metric(client, name) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"refresh_token": 5},
        {"refresh_token": "x" * 300},
        [],
        "x",
        {"refresh_token": "a", "b": 1},
    ],
)
def test_odd_refreshes_are_unprocessable_and_not_echoed(client: TestClient, body: Any) -> None:
    answer = client.post("/token/refresh", json=body)
    problem(answer, 422)
    assert "xxx" not in answer.text


def test_half_a_surrogate_pair_in_json_is_no_fault(client: TestClient) -> None:
    admin = bearer(sign_in(client))
    for path, body in (
        ("/token/refresh", {"refresh_token": "\ud800" * 64}),
        ("/users", {"name": "bob", "password": "\ud800" * 10}),
        ("/users", {"name": "bob", "password": "long-enough-1", "full_name": "\ud800"}),
        ("/users", {"name": "bob", "password": "long-enough-1", "full_name": "a\0"}),
        ("/users", {"name": "bob", "password": "long-e\0nough-1"}),
        ("/users/me/password", {"old_password": "\ud800", "new_password": "\0" * 9}),
    ):
        headers = {**admin, "Content-Type": "application/json"}
        answer = client.post(path, content=json.dumps(body), headers=headers)
        assert answer.status_code in (401, 403, 422), (path, answer.text)


def test_logout_ends_the_session_and_no_other(client: TestClient) -> None:
    ended, other = sign_in(client), sign_in(client)
    assert client.post("/logout", headers=bearer(ended)).status_code == 204
    problem(client.get("/verify-token", headers=bearer(ended)), 401)
    refresh = client.post("/token/refresh", json={"refresh_token": ended["refresh_token"]})
    problem(refresh, 401)
    assert client.get("/verify-token", headers=bearer(other)).status_code == 200


def test_verify_token_tells_who_it_is(client: TestClient) -> None:
    tokens = sign_in(client, "ada", "ada-password-1")
    body = client.get("/verify-token", headers=bearer(tokens)).json()
    assert body == {"active": True, "sub": "Ada", "role": "user", "exp": body["exp"]}
    assert 0 < body["exp"] - time.time() <= 1800


def test_a_token_in_the_address_is_refused_and_not_repeated(client: TestClient) -> None:
    tokens = sign_in(client)
    answer = client.get("/verify-token", params={"token": tokens["access_token"]})
    body = problem(answer, 400)
    assert "Authorization: Bearer" in body["detail"]
    assert tokens["access_token"] not in answer.text


def test_missing_and_forged_tokens_are_challenged_and_counted(client: TestClient) -> None:
    missing = client.get("/verify-token")
    assert problem(missing, 401)["reason"] == "missing"
    assert missing.headers["www-authenticate"] == "Bearer"
    token = sign_in(client)["access_token"]
    header, payload, signature = token.split(".")
    forged = f"{header}.{payload}.{signature[:10]}{'A' * (len(signature) - 10)}"
    for path in ("/verify-token", "/users", "/nowhere"):
        answer = client.get(path, headers={"Authorization": f"Bearer {forged}"})
        assert problem(answer, 401)["reason"] == "signature"
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    name = 'product_classifier_token_rejections_total{reason="signature"}'
    assert metric(client, name) == 3


def test_ordinary_users_may_not_administer(client: TestClient) -> None:
    headers = bearer(sign_in(client, "ada", "ada-password-1"))
    new = {"name": "eve", "password": "long-enough-1", "role": "admin"}
    answers = [
        client.get("/users", headers=headers),
        client.post("/users", json=new, headers=headers),
        client.get("/users/admin", headers=headers),
        client.patch("/users/ada", json={"role": "admin"}, headers=headers),
        client.delete("/users/admin", headers=headers),
        client.get("/audit", headers=headers),
    ]
    for answer in answers:
        problem(answer, 403)
    assert client.get("/users/me", headers=headers).json()["role"] == "user"


def test_an_administrator_who_was_demoted_is_none_at_once(client: TestClient) -> None:
    admin = bearer(sign_in(client))
    client.patch("/users/ada", json={"role": "admin"}, headers=admin)
    ada = bearer(sign_in(client, "ada", "ada-password-1"))
    assert client.get("/users", headers=ada).status_code == 200
    client.patch("/users/ada", json={"role": "user"}, headers=admin)
    problem(client.get("/users", headers=ada), 401)


def test_users_are_managed(client: TestClient) -> None:
    admin = bearer(sign_in(client))
    new = {"name": "Bob", "password": "bobs-password", "full_name": "Bob B"}
    made = client.post("/users", json=new, headers=admin)
    assert (made.status_code, made.headers["location"]) == (201, "/users/Bob")
    assert "password" not in made.text
    problem(client.post("/users", json={**new, "name": "bOB"}, headers=admin), 409)
    assert client.get("/users/bob", headers=admin).json() == made.json()
    page = client.get("/users", params={"limit": 2, "offset": 1}, headers=admin).json()
    assert ([user["name"] for user in page["users"]], page["total"]) == (["admin", "Bob"], 3)
    changed = client.patch("/users/bob", json={"password": "another-pass"}, headers=admin)
    assert changed.status_code == 200
    problem(login(client, "bob", "bobs-password"), 401)
    assert login(client, "bob", "another-pass").status_code == 200
    assert client.delete("/users/bob", headers=admin).status_code == 204
    problem(client.get("/users/bob", headers=admin), 404)
    problem(client.delete("/users/bob", headers=admin), 404)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a b", "password": "long-enough-1"},
        {"name": "bob\n", "password": "long-enough-1"},
        {"name": "me", "password": "long-enough-1"},
        {"name": "bob", "password": "short"},
        {"name": "bob", "password": "hunter2-" * 10},
        {"name": "bob", "password": "long-enough-1", "role": "root"},
        {"name": "bob", "password": "long-enough-1", "machine": True},
        {"name": "bob"},
    ],
    ids=["space", "newline", "me", "short", "long", "role", "extra", "no-password"],
)
def test_odd_users_are_refused(client: TestClient, body: dict[str, Any]) -> None:
    answer = client.post("/users", json=body, headers=bearer(sign_in(client)))
    problem(answer, 422)
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    ("method", "body"),
    [("PATCH", {"role": "user"}), ("PATCH", {"active": False}), ("DELETE", None)],
)
def test_the_last_administrator_stays(client: TestClient, method: str, body: Any) -> None:
    admin = bearer(sign_in(client))
    problem(client.request(method, "/users/Admin", json=body, headers=admin), 409)
    assert client.get("/users/me", headers=admin).json()["role"] == "admin"


def test_users_change_their_own_password(client: TestClient) -> None:
    here, elsewhere = (sign_in(client, "ada", "ada-password-1") for _ in range(2))

    def change(old: str, new: str) -> httpx.Response:
        body = {"old_password": old, "new_password": new}
        return client.post("/users/me/password", json=body, headers=bearer(here))

    problem(change("wrong", "new-password-1"), 403)
    problem(change("ada-password-1", "short"), 422)
    assert change("ada-password-1", "new-password-1").status_code == 204
    assert client.get("/users/me", headers=bearer(here)).status_code == 200
    problem(client.get("/users/me", headers=bearer(elsewhere)), 401)
    problem(login(client, "ada", "ada-password-1"), 401)
    assert login(client, "ada", "new-password-1").status_code == 200


def test_guessing_the_old_password_locks_out(client: TestClient) -> None:
    tokens = sign_in(client, "ada", "ada-password-1")
    body = {"old_password": "wrong", "new_password": "new-password-1"}
    answers = [
        client.post("/users/me/password", json=body, headers=bearer(tokens)) for _ in range(4)
    ]
    assert [answer.status_code for answer in answers] == [403, 403, 403, 429]
    problem(login(client, "ada", "ada-password-1"), 429)


def test_audit_is_paged_and_says_who_and_from_where(client: TestClient) -> None:
    admin = bearer(sign_in(client))
    headers = {**admin, "X-Request-ID": "call-7"}
    client.patch("/users/ada", json={"role": "admin"}, headers=headers)
    page = client.get("/audit", params={"limit": 1}, headers=admin).json()
    entry = page["entries"][0]
    told = {key: entry[key] for key in ("event", "actor", "subject", "request_id", "detail")}
    assert told == {
        "event": "role_changed",
        "actor": "admin",
        "subject": "Ada",
        "request_id": "call-7",
        "detail": "user to admin",
    }
    older = client.get("/audit", params={"before": page["next_before"]}, headers=admin).json()
    assert [e["event"] for e in older["entries"]] == ["login", "user_created", "user_created"]
    assert older["next_before"] is None
    logins = client.get("/audit", params={"event": "login"}, headers=admin).json()["entries"]
    assert [e["actor"] for e in logins] == ["admin"]
    problem(client.get("/audit", params={"event": "other"}, headers=admin), 422)


def test_health_and_ready_and_welcome(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    assert "auth" in client.get("/").json()["message"].lower()
    assert client.get("/docs").status_code == 200


def test_a_database_away_is_503_and_health_goes_on(
    auth_settings: Build, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    with postgres_server.new_database() as url:
        app = create_app(auth_settings(auth_database_url=url), rounds=ROUNDS)
        with TestClient(app, raise_server_exceptions=False) as client:
            tokens = sign_in(client)
            assert client.get("/ready").status_code == 200
            name = url.partition("@/")[2].partition("?")[0]
            with postgres_server.connect() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            refresh = {"refresh_token": tokens["refresh_token"]}
            answers = [
                client.get("/ready"),
                client.get("/verify-token", headers=bearer(tokens)),
                client.post("/token/refresh", json=refresh),
                login(client, "admin", ADMIN_PASSWORD),
            ]
            assert client.get("/health").status_code == 200
            with postgres_server.connect() as connection:
                connection.execute(f"CREATE DATABASE {name}")  # for the fixture to drop
    for answer in answers:
        problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
    assert postgres_server.password not in caplog.text


def test_a_rotation_in_another_process_takes_effect(
    client: TestClient, auth_settings: Build
) -> None:
    before = sign_in(client)
    store = KeyStore(auth_settings().auth_data_path)
    key = store.rotate(1800, publish_seconds=0)
    after = sign_in(client)
    published = client.get("/.well-known/jwks.json").json()
    kids = [entry["kid"] for entry in published["keys"]]
    assert len(kids) == 2
    assert key.kid in kids
    verified = TokenVerifier(VerificationKeys.from_jwks(published))
    for tokens in (before, after):
        assert verified.verify(tokens["access_token"]).subject == "admin"
        assert client.get("/verify-token", headers=bearer(tokens)).status_code == 200
    assert before["access_token"].split(".")[0] != after["access_token"].split(".")[0]


def test_hs256_publishes_no_key(auth_settings: Build) -> None:
    secret = "0123456789abcdef" * 4
    settings = auth_settings(algorithm="HS256", secret_key=secret)
    with TestClient(create_app(settings, rounds=ROUNDS)) as client:
        tokens = sign_in(client)
        assert client.get("/.well-known/jwks.json").json() == {"keys": []}
        assert TokenVerifier(secret).verify(tokens["access_token"]).subject == "admin"
        assert client.get("/verify-token", headers=bearer(tokens)).status_code == 200
    assert not (settings.auth_data_path / "keys.json").exists()


def test_nothing_secret_is_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = sign_in(client, "ada", "ada-password-1")
    login(client, "ada", "wrong-hunter2")
    client.get("/verify-token", params={"token": tokens["access_token"]})
    following = client.post("/token/refresh", json={"refresh_token": tokens["refresh_token"]})
    body = {"old_password": "ada-password-1", "new_password": "new-hunter2-1"}
    client.post("/users/me/password", json=body, headers=bearer(following.json()))
    # The test's own client logs the addresses that it asks for.
    records = [record for record in caplog.records if not record.name.startswith("http")]
    logged = repr([vars(record) for record in records])
    assert "login_failed" in logged
    given = [tokens, following.json()]
    secrets = [answer[kind] for answer in given for kind in ("access_token", "refresh_token")]
    for secret in (*secrets, "ada-password-1", "hunter2", "$2b$"):
        assert secret not in logged


def test_anonymous_floods_are_throttled_but_health_is_not(auth_settings: Build) -> None:
    app = create_app(auth_settings(anonymous_rate_limit="5/minute"), rounds=ROUNDS)
    with TestClient(app) as client:
        answers = [client.post("/token") for _ in range(6)]
        assert [answer.status_code for answer in answers] == [422] * 5 + [429]
        problem(answers[-1], 429)
        assert {client.get("/health").status_code for _ in range(20)} == {200}
        assert {client.get("/.well-known/jwks.json").status_code for _ in range(20)} == {200}


def test_every_documented_error_has_the_problem_shape(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status.startswith(("4", "5")):
                    assert "application/problem+json" in response["content"], (path, status)
    assert "HTTPValidationError" not in json.dumps(document)


def test_two_authorization_headers_are_refused_also_where_the_path_is_public(
    client: TestClient,
) -> None:
    mine = bearer(sign_in(client))["Authorization"]
    headers = [("Authorization", mine), ("Authorization", "Bearer another.token.here")]
    for path in ("/verify-token", "/users/me"):
        assert problem(client.get(path, headers=headers), 401)["reason"] == "malformed"
