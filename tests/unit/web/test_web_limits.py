"""Limits per user, in memory and in a real Redis that is killed and hangs."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from product_classifier.core.errors import ConfigurationError
from product_classifier.web import limits as module
from product_classifier.web.limits import RateLimits, parse_rates
from product_classifier.web.problems import Problem
from redis_process import RedisProcess, running_redis

LONGEST_STALL = (
    0.75  # three times what is promised; three times the longest pause before the trouble is added
)
CALM_SECONDS = 1.0


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may be slow here: what is tested is another thing, and this machine may be busy."""
    monkeypatch.setattr(module, "STORE_SECONDS", 20.0)
    monkeypatch.setattr(module, "SOCKET_SECONDS", 20.0)


def request_of(user: str = "alice", path: str = "/predict") -> Request:
    scope = {"type": "http", "path": path, "headers": [], "state": {"user": user}}
    return Request(scope)


def headers_of(request: Request) -> dict[str, str]:
    return dict(request.scope["state"]["answer_headers"])


def run(url: str | None, work: Callable[[RateLimits], Awaitable[Any]]) -> Any:
    async def inner() -> Any:
        limits = RateLimits(url, {"/predict/batch": "products"})
        try:
            return await work(limits)
        finally:
            await limits.close()

    return asyncio.run(inner())


async def status(limits: RateLimits, request: Request, rate: str, cost: int = 1) -> int:
    try:
        await limits.charge(request, rate, cost)
    except Problem as problem:
        return problem.status
    return 200


def test_the_eleventh_request_of_a_minute_is_429() -> None:
    async def work(limits: RateLimits) -> None:
        for left in range(9, -1, -1):
            request = request_of()
            await limits.charge(request, "10/minute")
            assert headers_of(request)["X-RateLimit-Remaining"] == str(left)
            assert headers_of(request)["X-RateLimit-Limit"] == "10"
        request = request_of()
        with pytest.raises(Problem) as caught:
            await limits.charge(request, "10/minute")
        assert caught.value.status == 429
        assert 50 <= int(caught.value.headers["Retry-After"]) <= 61
        assert headers_of(request)["X-RateLimit-Remaining"] == "0"
        assert int(headers_of(request)["X-RateLimit-Reset"]) >= time.time() + 50
        assert await status(limits, request_of("bob"), "10/minute") == 200

    run(None, work)


def test_products_have_a_budget_of_their_own() -> None:
    async def work(limits: RateLimits) -> list[int]:
        batch = "/predict/batch"
        return [
            await status(limits, request_of(path=batch), "10/minute", 10),
            await status(limits, request_of(path=batch), "10/minute", 1),
            await status(limits, request_of(), "10/minute", 10),
            await status(limits, request_of(path="/predict_code"), "10/minute", 1),
        ]

    assert run(None, work) == [200, 429, 200, 429]


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("stored_in", ["memory", "redis"])
def test_what_is_refused_costs_nothing(stored_in: str, tmp_path: Path) -> None:
    async def work(limits: RateLimits) -> list[int]:
        sizes = [101, 101, 60, 60, 40, 1]
        return [await status(limits, request_of(), "100/hour", size) for size in sizes]

    expected = [422, 422, 200, 429, 200, 429]
    if stored_in == "memory":
        assert run(None, work) == expected
    else:
        with running_redis(tmp_path) as redis:
            assert run(redis.url, work) == expected


def test_several_limits_hold_at_once() -> None:
    async def work(limits: RateLimits) -> list[int]:
        return [await status(limits, request_of(), "5/minute;3/hour") for _ in range(4)]

    assert run(None, work) == [200, 200, 200, 429]


@pytest.mark.usefixtures("_patient")
def test_processes_share_their_count_through_redis(tmp_path: Path) -> None:
    async def work(limits: RateLimits) -> list[int]:
        assert limits.is_shared
        return [await status(limits, request_of(), "5/minute") for _ in range(4)]

    with running_redis(tmp_path) as redis:
        assert run(redis.url, work) == [200] * 4
        assert run(redis.url, work) == [200, 429, 429, 429]


@pytest.mark.usefixtures("_patient")
def test_a_redis_that_is_not_there_at_the_start_is_no_error(tmp_path: Path) -> None:
    redis = RedisProcess(tmp_path)

    async def work(limits: RateLimits) -> list[int]:
        codes = [await status(limits, request_of(), "3/minute") for _ in range(4)]
        redis.start()
        await wait_for(limits, shared=True)
        return [*codes, await status(limits, request_of(), "3/minute")]

    try:
        assert run(redis.url, work) == [200, 200, 200, 429, 200]
    finally:
        redis.kill()


async def wait_for(limits: RateLimits, *, shared: bool) -> None:
    async with asyncio.timeout(60):
        while limits.is_shared is not shared:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("trouble", ["killed", "hung"])
def test_a_redis_that_dies_or_hangs_stalls_no_request_and_limits_go_on(
    tmp_path: Path, trouble: str
) -> None:
    with running_redis(tmp_path) as redis:

        async def work(limits: RateLimits) -> None:
            user = await counted_in_redis(limits)
            calm, _ = await longest_stall(limits, "calm", CALM_SECONDS)
            redis.kill() if trouble == "killed" else redis.hang()
            # 3 seconds: two probes or more fall into it.
            longest, codes = await longest_stall(limits, user, 3.0)
            assert longest < LONGEST_STALL + 3 * calm
            assert set(codes) == {200, 429}
            assert codes.count(200) == 20
            redis.start() if trouble == "killed" else redis.go_on()
            await wait_for(limits, shared=True)
            await counted_in_redis(limits)

        run(redis.url, work)


async def counted_in_redis(limits: RateLimits) -> str:
    """Gives a user whose first request was counted there; Redis may have been too slow for others."""
    for number in range(20):
        assert await status(limits, request_of(user := f"user{number}"), "20/minute") == 200
        if limits.is_shared:
            return user
        await wait_for(limits, shared=True)
    raise AssertionError("Redis is never fast enough")


async def longest_stall(limits: RateLimits, user: str, seconds: float) -> tuple[float, list[int]]:
    """Asks again and again; gives the longest wait of a request or of the event loop, and the answers."""
    pauses: list[float] = []
    codes: list[int] = []

    async def one() -> None:
        began = time.monotonic()
        codes.append(await status(limits, request_of(user), "20/minute"))
        pauses.append(time.monotonic() - began)

    stop = asyncio.Event()
    watching = asyncio.create_task(_longest_pause(stop))
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(codes) <= 20:
        await asyncio.gather(*(one() for _ in range(4)))
        await asyncio.sleep(0.1)
    stop.set()
    return max(*pauses, await watching), codes


async def _longest_pause(stop: asyncio.Event) -> float:
    longest = 0.0
    while not stop.is_set():
        began = time.monotonic()
        await asyncio.sleep(0.005)
        longest = max(longest, time.monotonic() - began)
    return longest


@pytest.mark.parametrize("text", ["", "ten", "10", "0/minute", "10/fortnight", "-1/hour"])
def test_nonsense_limits_are_refused_with_their_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match="PREDICT_RATE_LIMIT"):
        parse_rates(text, "PREDICT_RATE_LIMIT")


def test_what_was_paid_before_counts_toward_the_cost_once() -> None:
    async def work(limits: RateLimits) -> list[int]:
        batch = request_of(path="/predict/batch")
        await limits.charge(batch, "10/minute")
        await limits.charge(batch, "10/minute", 1, paid=1)
        assert headers_of(batch)["X-RateLimit-Remaining"] == "9"
        await limits.charge(batch, "10/minute", 10, paid=1)
        assert headers_of(batch)["X-RateLimit-Remaining"] == "0"
        with pytest.raises(Problem, match="at most 10 here. Received: 11") as caught:
            await limits.charge(request_of("bob", "/predict/batch"), "10/minute", 11, paid=1)
        assert caught.value.status == 422
        return [await status(limits, batch, "10/minute")]

    assert run(None, work) == [429]
