"""The door to slowapi: limits per user, counted in Redis or in memory.

A Redis that is away, hangs or drips costs one request `STORE_SECONDS` at most; after that this process counts in
memory until Redis answers a probe in the background. slowapi's decorators are not used: they block the event loop,
and answer 500 where two requests meet the same broken Redis. Its moving window never charges a request it refuses.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from limits import RateLimitItem, parse_many
from limits.strategies import RateLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry
from slowapi import Limiter
from starlette.requests import Request

from product_classifier.core.errors import ConfigurationError
from product_classifier.web.problems import Problem
from product_classifier.web.refusals import too_many_requests

logger = logging.getLogger(__name__)

STORE_SECONDS = 0.2
PROBE_SECONDS = 1.0
SOCKET_SECONDS = 0.15
SCHEMES = ("redis://", "rediss://", "unix://")


Rates = tuple[RateLimitItem, ...]  # all of them hold at once


@lru_cache(maxsize=64)
def parse_rates(text: str, setting: str = "A rate limit") -> Rates:
    """Reads limits such as `10/minute` or `10/minute;100/hour`.

    Raises:
        ConfigurationError: the text is no limit; names the setting.
    """
    try:
        rates = tuple(parse_many(text))
    except ValueError:
        rates = ()
    if not rates or any(rate.amount < 1 or rate.get_expiry() < 1 for rate in rates):
        raise ConfigurationError(
            f"{setting} must be a number per second, minute, hour or day, such as 10/minute, "
            f"or several with ; between them. Received: {text!r}."
        )
    return rates


@dataclass(frozen=True)
class _Charge:
    """What is to be counted."""

    rates: Rates
    key: tuple[str, str]
    cost: int


@dataclass(frozen=True)
class _Count:
    """Where a user stands with one limit after a request."""

    allowed: bool
    limit: int
    remaining: int
    reset: float  # seconds since the epoch


class RateLimits:
    """Counts what users do; made and used on one event loop."""

    def __init__(self, redis_url: str | None, budgets: Mapping[str, str] | None = None) -> None:
        """Sets the stores up; nothing is connected yet.

        Args:
            redis_url: None: each process counts for itself.
            budgets: Names the budget of a path; paths that are not in it share one.

        Raises:
            ConfigurationError: the address is no Redis address; it is not repeated, it may hold a password.
        """
        self._budgets = dict(budgets or {})
        self._shared = redis_url is not None
        if redis_url is not None and not redis_url.startswith(SCHEMES):
            raise ConfigurationError(f"REDIS_URL must begin with one of {', '.join(SCHEMES)}.")
        options: dict[str, Any] = {
            "socket_timeout": SOCKET_SECONDS,
            "socket_connect_timeout": SOCKET_SECONDS,
            "retry": Retry(NoBackoff(), 0),  # redis-py's own retries would wait for seconds
        }
        uri = (redis_url or "memory://").replace("unix://", "redis+unix://")
        try:
            self._limiter = Limiter(
                key_func=_subject,
                strategy="moving-window",
                storage_uri=uri,
                storage_options=options if self._shared else {},
                in_memory_fallback_enabled=True,
            )
        except Exception as error:
            raise ConfigurationError(f"REDIS_URL can't be used ({type(error).__name__}).") from None
        # Threads of its own: a name server or a Redis that hangs must not hold those of the routes.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="limits")
        self._probe: asyncio.Task[None] | None = None

    @property
    def is_shared(self) -> bool:
        """Whether limits are counted in Redis at the moment."""
        return self._shared and self._probe is None

    @property
    def has_fallen_back(self) -> bool:
        """Whether limits should be counted in Redis and are not."""
        return self._shared and self._probe is not None

    async def charge(self, request: Request, rate: str, cost: int = 1, paid: int = 0) -> None:
        """Counts a request of the user whom its token names; the answer's headers say what is left.

        Args:
            request: The request.
            rate: The limit, as `parse_rates` reads it.
            cost: What the request costs in all.
            paid: What of it was counted before.

        Raises:
            Problem: 429, not now; 422, it costs more than the limit allows at any time. Neither is counted.
        """
        rates = parse_rates(rate)
        greatest = min(item.amount for item in rates)
        if cost > greatest:
            raise Problem(
                422,
                "Unprocessable Content",
                f"One request may hold at most {greatest} here. Received: {cost}.",
                limit=greatest,
            )
        budget = self._budgets.get(request.scope["path"], "requests")
        if cost == paid:
            return
        counts = await self._count(_Charge(rates, (_subject(request), budget), cost - paid))
        tightest = min(counts, key=lambda count: (count.allowed, count.remaining))
        headers = {
            "X-RateLimit-Limit": str(tightest.limit),
            "X-RateLimit-Remaining": str(max(0, tightest.remaining)),
            "X-RateLimit-Reset": str(math.ceil(tightest.reset)),
        }
        request.scope["state"].setdefault("answer_headers", {}).update(headers)
        if not tightest.allowed:
            wait = max(1, math.ceil(tightest.reset - time.time()))
            detail = f"The limit is {rate}. Try again in {wait} s."
            raise too_many_requests(request.scope, "user", detail, wait)

    async def _count(self, charge: _Charge) -> list[_Count]:
        if not self.is_shared:
            return _hit(self._local(), charge)
        loop = asyncio.get_running_loop()
        limiter = self._limiter.limiter
        try:
            async with asyncio.timeout(STORE_SECONDS):
                return await loop.run_in_executor(self._threads, _hit, limiter, charge)
        except Exception as error:  # TimeoutError, redis's errors, and what a broken Redis may send
            self._fall_back(error)
            return _hit(self._local(), charge)

    def _local(self) -> RateLimiter:
        fallback = self._limiter._fallback_limiter if self._shared else self._limiter.limiter
        assert fallback is not None
        return fallback

    def _fall_back(self, error: Exception) -> None:
        if self._probe is not None:
            return
        logger.warning(
            "Redis does not answer (%s): rate limits are counted in memory for now.",
            type(error).__name__,
        )
        self._probe = asyncio.create_task(self._wait_for_redis(), name="limits-probe")

    async def _wait_for_redis(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                async with asyncio.timeout(2 * STORE_SECONDS):
                    if await loop.run_in_executor(self._threads, self._limiter._storage.check):
                        break
            except Exception as error:
                logger.debug("Redis is still away: %s", type(error).__name__)
        logger.info("Redis answers again: rate limits are counted there.")
        self._probe = None

    async def close(self) -> None:
        """Ends what runs in the background."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
            self._probe = None
        self._threads.shutdown(wait=False, cancel_futures=True)


def _subject(request: Request) -> str:
    return str(request.scope["state"].get("user") or "anonymous")


def _hit(limiter: RateLimiter, charge: _Charge) -> list[_Count]:
    counts = []
    for item in charge.rates:
        allowed = limiter.hit(item, *charge.key, cost=charge.cost)
        reset, remaining = limiter.get_window_stats(item, *charge.key)
        counts.append(_Count(allowed, item.amount, remaining, reset))
        if not allowed:
            break
    return counts
