"""The last entries of the request log, for admins: in Redis where there is one, and always in memory.

A request never waits: its entry goes into memory and into a bounded queue, which a task writes to Redis. While Redis
is away entries stay in memory only. With Redis, what other processes and an earlier run wrote is seen too.
"""

import asyncio
import json
import logging
import math
from collections import Counter, deque
from collections.abc import Awaitable, Iterable
from typing import Any, Literal, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

logger = logging.getLogger(__name__)

KEY = "product_classifier:request_log"
REDIS_SECONDS = 0.2
QUEUE_ENTRIES = 1000
WRITE_ENTRIES = 100  # written at one time
PAUSE_SECONDS = 1.0  # after a failure

Level = Literal["INFO", "WARNING", "ERROR"]
Entry = dict[str, Any]


def level_of(status: int) -> Level:
    """Gives the level of an entry by its status."""
    if status >= 500:
        return "ERROR"
    return "WARNING" if status >= 400 else "INFO"


class LogStore:
    """Keeps the last `size` entries; made and used on one event loop."""

    def __init__(self, redis_url: str | None, size: int) -> None:
        self._size = size
        self._memory: deque[Entry] = deque(maxlen=size)
        self._queue: asyncio.Queue[str] = asyncio.Queue(QUEUE_ENTRIES)
        self._redis: Redis | None = None
        self._writer: asyncio.Task[None] | None = None
        self._away = False
        if redis_url is not None and size:
            self._redis = Redis.from_url(
                redis_url,
                socket_timeout=REDIS_SECONDS,
                socket_connect_timeout=REDIS_SECONDS,
                retry=Retry(NoBackoff(), 0),
                decode_responses=True,
            )

    @property
    def has_fallen_back(self) -> bool:
        """Whether entries should go to Redis and are in memory only."""
        return self._away

    def start(self) -> None:
        """Starts writing."""
        if self._redis is not None:
            self._writer = asyncio.create_task(self._write_forever(self._redis), name="request-log")

    async def close(self) -> None:
        """Writes what waits, for a moment at most, and ends."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
            self._writer = None
            if not self._away and not self._queue.empty():
                await self._write(self._waiting())
        if self._redis is not None:
            await self._redis.aclose()

    def add(self, entry: Entry) -> None:
        """Takes an entry; drops it for Redis where too many wait."""
        if not self._size:
            return
        entry = {**entry, "level": level_of(entry["status"])}
        self._memory.appendleft(entry)
        if self._writer is not None and not self._queue.full():
            self._queue.put_nowait(json.dumps(entry, default=str))

    async def entries(self) -> list[Entry]:
        """Lists the entries, newest first."""
        if self._redis is not None and not self._away:
            await self._write(self._waiting())
            read = cast(Awaitable[list[str]], self._redis.lrange(KEY, 0, self._size - 1))
            lines = await self._try(read)
            if lines is not None:
                return list(_read_lines(lines))
        return list(self._memory)

    async def clear(self) -> bool:
        """Forgets all entries; says whether Redis did too, where there is one."""
        self._memory.clear()
        self._waiting()
        if self._redis is None:
            return True
        return await self._try(self._redis.delete(KEY)) is not None

    def _waiting(self) -> list[str]:
        lines = []
        while not self._queue.empty():
            lines.append(self._queue.get_nowait())
        return lines

    async def _write_forever(self, redis: Redis) -> None:
        while True:
            lines = [await self._queue.get()]
            while len(lines) < WRITE_ENTRIES and not self._queue.empty():
                lines.append(self._queue.get_nowait())
            await self._write(lines)
            while self._away:  # also where nobody sends a request: that Redis is back must be seen
                await asyncio.sleep(PAUSE_SECONDS)
                await self._try(redis.ping())

    async def _write(self, lines: list[str]) -> None:
        if not lines or self._redis is None:
            return
        pipe = self._redis.pipeline(transaction=False)
        pipe.lpush(KEY, *lines)
        pipe.ltrim(KEY, 0, self._size - 1)
        await self._try(pipe.execute())

    async def _try(self, call: Awaitable[Any]) -> Any:
        """Waits for Redis, `REDIS_SECONDS` at most in all; gives None where it is away."""
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                result = await call
        except Exception as error:  # whatever a broken Redis sends: the log must not stop for it
            if not self._away:
                logger.warning(
                    "Redis does not answer (%s): the request log is in memory for now.",
                    type(error).__name__,
                )
            self._away = True
            return None
        self._away = False
        return result


def _read_lines(lines: Iterable[str]) -> Iterable[Entry]:
    for line in lines:
        try:
            entry = json.loads(line)
            level, moment = level_of(entry["status"]), float(entry["time"])
        except (ValueError, TypeError, KeyError):
            continue  # not ours, or of another version
        if math.isfinite(moment):
            yield {**entry, "level": level, "time": moment}


def select(
    entries: list[Entry], level: Level | None, since: float | None, limit: int
) -> list[Entry]:
    """Picks entries by level and time (seconds since the epoch)."""
    return [
        entry
        for entry in entries
        if (level is None or entry["level"] == level) and (since is None or entry["time"] >= since)
    ][:limit]


def summarise(entries: list[Entry]) -> dict[str, Any]:
    """Counts entries by level, status and route, and gives their milliseconds' percentiles."""
    times = sorted(float(entry.get("milliseconds") or 0.0) for entry in entries)
    return {
        "entries": len(entries),
        "levels": dict(Counter(entry["level"] for entry in entries)),
        "statuses": dict(Counter(str(entry["status"]) for entry in entries)),
        "routes": dict(Counter(str(entry.get("route")) for entry in entries)),
        "milliseconds": {"p50": _percentile(times, 0.5), "p95": _percentile(times, 0.95)},
    }


def _percentile(ordered: list[float], share: float) -> float | None:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
