"""Where serve's keys come from, and that auth's absence, slowness or nonsense harms no valid token."""

import asyncio
import gzip
import json
import logging
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from product_classifier.auth.keys import KeyStore
from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings
from product_classifier.web.jwks import MAX_BODY_BYTES, KeySource
from product_classifier.web.tokens import (
    KeysUnavailable,
    SigningKey,
    TokenError,
    TokenSigner,
    VerificationKeys,
)

SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
URL = "http://auth.invalid:8011"


class FakeAuth(httpx.AsyncBaseTransport):
    """Auth as seen from serve: what it answers can be changed at any time."""

    def __init__(self, *keys: SigningKey) -> None:
        self.requests: list[httpx.Request] = []
        self.answer: Callable[[], Awaitable[httpx.Response]] = self.publish
        self.keys = list(keys)
        self.hung = asyncio.Event()

    async def publish(self) -> httpx.Response:
        return httpx.Response(200, json=VerificationKeys.of(*self.keys).to_jwks())

    async def refuse(self) -> httpx.Response:
        raise httpx.ConnectError("Connection refused by auth.invalid")

    async def hang(self) -> httpx.Response:
        self.hung.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return await self.answer()


class Clock:
    """Monotonic time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "serve" / "jwks.json"


def token_of(key: SigningKey | str) -> str:
    return TokenSigner(key, lifetime_seconds=600).issue("alice", "user", "s-1")


@asynccontextmanager
async def started(auth: FakeAuth, cache: Path, **options: Any) -> AsyncIterator[KeySource]:
    source = KeySource(URL, cache, transport=auth, **options)
    await source.start()
    try:
        yield source
    finally:
        await source.close()


async def keep(key: SigningKey, cache: Path) -> None:
    """Leaves the file that a service with these keys leaves."""
    async with started(FakeAuth(key), cache):
        pass


@dataclass
class Rotated:
    """Auth has a new key; the source knows the old one, and may ask again."""

    auth: FakeAuth
    source: KeySource
    token: str  # signed with the new key
    asked: int  # requests so far


@asynccontextmanager
async def rotated(old: SigningKey, cache: Path) -> AsyncIterator[Rotated]:
    auth, clock, new = FakeAuth(old), Clock(), SigningKey.generate()
    async with started(auth, cache, clock=clock) as source:
        await source.refresh()
        auth.keys.append(new)
        clock.now += 11
        yield Rotated(auth, source, token_of(new), len(auth.requests))


@asynccontextmanager
async def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A real server; at the end it leaves no connection behind, whatever its callers and handlers did."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()  # what nobody reads any more would keep it open

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections)
        await asyncio.sleep(0)  # now the transports are closed


async def reason_of(source: KeySource, token: str) -> str | None:
    try:
        await source.verify(token)
    except TokenError as error:
        return error.reason
    return None


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_keys_are_fetched_at_the_start(key: SigningKey, cache: Path) -> None:
    async def scenario() -> None:
        auth = FakeAuth(key)
        async with started(auth, cache) as source:
            assert source.ready
            assert (await source.verify(token_of(key))).subject == "alice"
        assert str(auth.requests[0].url) == URL + "/.well-known/jwks.json"
        assert "authorization" not in auth.requests[0].headers

    run(scenario())


def test_verifying_with_a_known_key_never_waits(key: SigningKey, cache: Path) -> None:
    async def scenario() -> None:
        auth = FakeAuth(key)
        async with started(auth, cache) as source:
            await asyncio.sleep(0)
            asked = len(auth.requests)
            for token, verified in ((token_of(key), True), (token_of(key) + "x", False)):
                work = source.verify(token)
                with pytest.raises(StopIteration if verified else TokenError):
                    work.send(None)  # the first step is the last: nothing was awaited
            assert len(auth.requests) == asked

    run(scenario())


def test_auth_away_harms_no_valid_token(key: SigningKey, cache: Path) -> None:
    async def scenario() -> None:
        auth, clock = FakeAuth(key), Clock()
        async with started(auth, cache, clock=clock, refresh_seconds=0.01) as source:
            auth.answer = auth.refuse
            token = token_of(key)
            for _ in range(60):
                clock.now += 1
                assert await source.refresh() is False
                assert await reason_of(source, token) is None
            assert source.ready

    run(scenario())


def test_a_restart_with_auth_away_uses_the_kept_keys(key: SigningKey, cache: Path) -> None:
    async def scenario() -> None:
        auth = FakeAuth(key)
        await keep(key, cache)
        assert stat.S_IMODE(cache.stat().st_mode) == 0o600
        assert [path.name for path in cache.parent.iterdir()] == [cache.name]
        auth.answer = auth.refuse
        async with started(auth, cache) as source:
            assert source.ready
            assert await reason_of(source, token_of(key)) is None

    run(scenario())


def test_kept_keys_spare_the_start_the_wait_for_a_hung_auth(key: SigningKey, cache: Path) -> None:
    async def scenario() -> None:
        auth = FakeAuth(key)
        await keep(key, cache)
        auth.answer = auth.hang
        async with started(auth, cache, fetch_seconds=1000) as source:
            assert await reason_of(source, token_of(key)) is None
            async with asyncio.timeout(30):
                await auth.hung.wait()  # it is asked all the same, in the background

    run(scenario())


def test_without_any_key_the_fault_is_not_the_tokens(key: SigningKey, cache: Path) -> None:
    async def scenario() -> None:
        auth = FakeAuth(key)
        auth.answer = auth.refuse
        async with started(auth, cache, retry_seconds=0.02) as source:
            assert not source.ready
            with pytest.raises(KeysUnavailable):
                await source.verify(token_of(key))
            auth.answer = auth.publish
            await until(lambda: source.ready)
            assert await reason_of(source, token_of(key)) is None

    run(scenario())


def test_before_the_start_nothing_is_accepted_and_nothing_fetched(
    key: SigningKey, cache: Path
) -> None:
    async def scenario() -> None:
        auth = FakeAuth(key)
        source = KeySource(URL, cache, transport=auth)
        assert not source.ready
        with pytest.raises(KeysUnavailable):
            await source.verify(token_of(key))
        assert auth.requests == []

    run(scenario())


def test_a_rotated_key_is_fetched_when_a_token_names_it(key: SigningKey, cache: Path) -> None:
    async def scenario() -> None:
        async with rotated(key, cache) as now:
            assert await reason_of(now.source, now.token) is None
            assert await reason_of(now.source, token_of(key)) is None
        assert all(known.kid in cache.read_text() for known in now.auth.keys)

    run(scenario())


def test_unknown_keys_make_one_request_in_ten_seconds(key: SigningKey, cache: Path) -> None:
    async def scenario() -> None:
        auth, clock = FakeAuth(key), Clock()
        async with started(auth, cache, clock=clock) as source:
            await source.refresh()
            before = len(auth.requests)
            for second in range(100):  # ten rubbish tokens a second for a hundred seconds
                clock.now = 2000.0 + second
                for _ in range(10):
                    assert await reason_of(source, token_of(SigningKey.generate())) == "key_unknown"
            assert len(auth.requests) - before == 10

    run(scenario())


def test_a_crowd_with_an_unknown_key_shares_one_request(key: SigningKey, cache: Path) -> None:
    async def scenario() -> None:
        async with rotated(key, cache) as now:

            async def slow() -> httpx.Response:
                await asyncio.sleep(0.05)
                return await now.auth.publish()

            now.auth.answer = slow
            crowd = (reason_of(now.source, now.token) for _ in range(50))
            assert set(await asyncio.gather(*crowd)) == {None}
            assert len(now.auth.requests) - now.asked == 1

    run(scenario())


def test_one_caller_that_gives_up_spoils_it_for_no_other(key: SigningKey, cache: Path) -> None:
    async def scenario() -> None:
        async with rotated(key, cache) as now:
            go = asyncio.Event()

            async def wait() -> httpx.Response:
                await go.wait()
                return await now.auth.publish()

            now.auth.answer = wait
            first, second = (
                asyncio.create_task(reason_of(now.source, now.token)) for _ in range(2)
            )
            await until(lambda: len(now.auth.requests) > now.asked)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            go.set()
            assert await second is None

    run(scenario())


def test_a_key_that_auth_withdrew_is_refused_after_the_next_refresh(
    key: SigningKey, cache: Path
) -> None:
    async def scenario() -> None:
        auth, new = FakeAuth(key), SigningKey.generate()
        async with started(auth, cache, refresh_seconds=0.01) as source:
            token = token_of(key)
            assert await reason_of(source, token) is None
            auth.keys = [new]
            async with asyncio.timeout(30):
                while await reason_of(source, token) is None:
                    await asyncio.sleep(0.005)
            assert await reason_of(source, token_of(new)) is None

    run(scenario())


def _nonsense(good: dict[str, Any]) -> dict[str, httpx.Response]:
    entry = good["keys"][0]
    text = json.dumps(good).encode()
    return {
        "html": httpx.Response(200, text="<html>It works!</html>"),
        "empty": httpx.Response(200, content=b""),
        "null": httpx.Response(200, json=None),
        "list": httpx.Response(200, json=[entry]),
        "object": httpx.Response(200, json={}),
        "no-keys": httpx.Response(200, json={"keys": []}),
        "cut": httpx.Response(200, content=text[:-20]),
        "not-utf8": httpx.Response(200, content=b"\xff\xfe\x00" + text),
        "nested": httpx.Response(200, content=b"[" * 60_000),
        "digits": httpx.Response(200, content=b'{"keys": ' + b"9" * 60_000 + b"}"),
        "symmetric": httpx.Response(200, json={"keys": [{"kty": "oct", "k": "AAAA", "kid": "a"}]}),
        "private": httpx.Response(200, json={"keys": [entry | {"d": entry["x"]}]}),
        "one-of-two-bad": httpx.Response(200, json={"keys": [entry, {"kty": "RSA"}]}),
        "server-error": httpx.Response(500, json=good),
        "not-found": httpx.Response(404, json=good),
        "other-success": httpx.Response(203, json=good),
        "redirect": httpx.Response(302, headers={"location": "http://evil.invalid/"}),
        "too-large": httpx.Response(200, content=text + b" " * MAX_BODY_BYTES),
        "compressed": httpx.Response(
            200, content=gzip.compress(text), headers={"content-encoding": "gzip"}
        ),
    }


@pytest.mark.parametrize(
    "name", list(_nonsense(VerificationKeys.of(SigningKey.generate()).to_jwks()))
)
def test_nonsense_never_takes_the_place_of_good_keys(
    key: SigningKey, cache: Path, name: str
) -> None:
    attacker = SigningKey.generate()

    async def scenario() -> None:
        auth = FakeAuth(key)
        async with started(auth, cache) as source:
            await source.refresh()
            kept = cache.read_bytes()
            answer = _nonsense(VerificationKeys.of(attacker).to_jwks())[name]

            async def answer_nonsense() -> httpx.Response:
                return answer

            auth.answer = answer_nonsense
            assert await source.refresh() is False
            assert await reason_of(source, token_of(key)) is None
            assert await reason_of(source, token_of(attacker)) == "key_unknown"
            assert cache.read_bytes() == kept
            assert all(request.url.host == "auth.invalid" for request in auth.requests)

    run(scenario())


@pytest.mark.parametrize(
    "error",
    [httpx.ConnectError("x"), httpx.RemoteProtocolError("x"), httpx.ReadTimeout("x"),
     OSError("x"), UnicodeError("x"), RuntimeError("x"), ValueError("x")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_the_network_raises_the_asking_goes_on(
    key: SigningKey, cache: Path, error: Exception
) -> None:
    async def scenario() -> None:
        auth = FakeAuth(key)

        async def fail() -> httpx.Response:
            raise error

        auth.answer = fail
        async with started(auth, cache, retry_seconds=0.01) as source:
            await until(lambda: len(auth.requests) >= 3)
            auth.answer = auth.publish
            await until(lambda: source.ready)

    run(scenario())


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
    while True:  # each byte comes well within any timeout per read
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def _hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(600)


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


async def _babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n" * 100)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("behaviour", [_drip, _hang, _pour, _babble], ids=lambda f: f.__name__[1:])
def test_a_hostile_server_is_left_in_time(
    key: SigningKey,
    cache: Path,
    behaviour: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> None:
    """Over a real socket: in total time and in bytes, whatever each single read does."""

    async def scenario() -> None:
        met: list[asyncio.StreamReader] = []

        async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            met.append(reader)
            await behaviour(reader, writer)

        async with listening(meet) as url:
            source = KeySource(url, cache, fetch_seconds=0.5, retry_seconds=60)
            begun = time.monotonic()
            await source.start()
            assert time.monotonic() - begun < 60  # else it waits for as long as the server likes
            assert not source.ready
            await source.close()
        assert met

    run(scenario())


def test_keys_come_over_a_real_socket_from_a_real_key_file(tmp_path: Path, cache: Path) -> None:
    store = KeyStore(tmp_path / "auth")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(store.verification_keys().to_jwks()).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def scenario() -> None:
        async with listening(answer) as url:
            source = KeySource(f"{url}/", cache, fetch_seconds=30, retry_seconds=0)
            await source.start()
            old = token_of(store.current())
            assert await reason_of(source, old) is None
            store.rotate(600, publish_seconds=0)
            assert await reason_of(source, token_of(store.current())) is None
            assert await reason_of(source, old) is None
        assert await reason_of(source, token_of(SigningKey.generate())) == "key_unknown"
        assert await reason_of(source, old) is None
        await source.close()

    run(scenario())


def _move_behind_a_link(cache: Path) -> None:
    cache.rename(cache.with_name("elsewhere"))
    cache.symlink_to(cache.with_name("elsewhere"))


def _put_a_folder(cache: Path) -> None:
    cache.unlink()
    cache.mkdir()


def _edit(**changes: Any) -> Callable[[Path], object]:
    return lambda cache: cache.write_text(json.dumps(json.loads(cache.read_text()) | changes))


_SPOILERS: dict[str, Callable[[Path], object]] = {
    "other-address": _edit(url="http://other.invalid/.well-known/jwks.json"),
    "no-keys": _edit(jwks={"keys": []}),
    "text": _edit(jwks="keys"),
    "writable-by-others": lambda cache: cache.chmod(0o602),
    "writable-by-group": lambda cache: cache.chmod(0o620),
    "link": _move_behind_a_link,
    "folder": _put_a_folder,
    "cut": lambda cache: cache.write_text(cache.read_text()[:50]),
    "empty": lambda cache: cache.write_text(""),
    "large": lambda cache: cache.write_text(cache.read_text() + " " * MAX_BODY_BYTES),
}


@pytest.mark.parametrize("how", list(_SPOILERS))
def test_a_kept_file_that_can_not_be_relied_on_is_not_used(
    key: SigningKey, cache: Path, how: str
) -> None:
    async def scenario() -> None:
        attacker = SigningKey.generate()
        await keep(attacker, cache)
        _SPOILERS[how](cache)
        auth = FakeAuth(key)
        auth.answer = auth.refuse
        async with started(auth, cache) as source:
            assert not source.ready
        auth.answer = auth.publish
        async with started(auth, cache) as source:
            assert await reason_of(source, token_of(attacker)) == "key_unknown"
            assert await reason_of(source, token_of(key)) is None

    run(scenario())


def test_a_disk_that_takes_nothing_costs_only_the_restart(key: SigningKey, tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "file").write_text("")
        async with started(FakeAuth(key), tmp_path / "file" / "jwks.json") as source:
            assert await reason_of(source, token_of(key)) is None

    run(scenario())


def test_a_shared_secret_asks_nobody_and_takes_one_family(key: SigningKey, cache: Path) -> None:
    async def scenario() -> None:
        auth = FakeAuth(key)
        async with started(auth, cache, secret=SECRET) as source:
            assert source.ready
            assert await reason_of(source, token_of(SECRET)) is None
            assert await reason_of(source, token_of(key)) == "algorithm"
        assert auth.requests == []
        assert not cache.exists()

    run(scenario())


def test_settings_choose_the_family(
    key: SigningKey, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)
    settings = {"_env_file": None, "algorithm": "HS256"}
    source = KeySource.from_settings(Settings(**settings, secret_key=SECRET), cache)
    assert source.ready
    for secret in (None, "short"):
        with pytest.raises(ConfigurationError, match="32 bytes"):
            KeySource.from_settings(Settings(**settings, secret_key=secret), cache)
    es256 = Settings(_env_file=None, algorithm="ES256", secret_key=SECRET)  # a leftover: unused
    assert not KeySource.from_settings(es256, cache).ready


def test_closing_ends_everything_even_a_hung_request(key: SigningKey, cache: Path) -> None:
    async def scenario() -> None:
        auth = FakeAuth(key)
        source = KeySource(URL, cache, transport=auth, fetch_seconds=1000)
        await source.start()
        await source.refresh()
        auth.answer = auth.hang
        waiting = asyncio.create_task(source.refresh())
        async with asyncio.timeout(30):
            await auth.hung.wait()
        async with asyncio.timeout(30):
            await source.close()
            await source.close()
        await asyncio.gather(waiting, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert await reason_of(source, token_of(key)) is None  # what was had is still there

    run(scenario())


def test_logs_tell_the_change_once_and_no_secret(
    key: SigningKey, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        auth = FakeAuth(key)
        auth.answer = auth.refuse
        source = KeySource("http://me:hunter22@auth.invalid", cache, transport=auth)
        await source.start()
        for _ in range(5):
            await source.refresh()
        assert await reason_of(source, token) == "unavailable"
        auth.answer = auth.publish
        for _ in range(5):
            await source.refresh()
        await source.close()

    token = token_of(key)
    with caplog.at_level(logging.DEBUG, logger="product_classifier"):
        run(scenario())
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("product")]
    assert lines == [
        "The keys of auth can't be fetched: ConnectError",
        "Keys of auth in use",
        "The keys of auth can be fetched again",
    ]
    everything = caplog.text + str([vars(record) for record in caplog.records])
    assert token not in everything
    assert "hunter22" not in "".join(lines)
