"""A throttle for callers without a valid token: counts in memory, before any body is read."""

import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

from product_classifier.core.errors import ConfigurationError

MAX_ADDRESSES = 10_000  # remembered at one time: a flood from many addresses can't fill the memory

_RATE = re.compile(
    r"(\d{1,9})\s*(?:/|per)\s*(\d{1,6})?\s*(second|minute|hour|day)s?", re.IGNORECASE
)
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


@dataclass(frozen=True)
class Rate:
    """So many in so many seconds."""

    amount: int
    seconds: int

    @classmethod
    def parse(cls, text: str, setting: str) -> "Rate":
        """Reads `60/minute`, `5 per 10 seconds` and the like.

        Raises:
            ConfigurationError: it is none of these; names the setting.
        """
        match = _RATE.fullmatch(text.strip())
        if match is None or not int(match[1]) or match[2] == "0":
            raise ConfigurationError(
                f"{setting} must be a number per second, minute, hour or day, such as 60/minute. "
                f"Received: {text!r}."
            )
        return cls(int(match[1]), int(match[2] or 1) * _SECONDS[match[3].lower()])


class AnonymousThrottle:
    """Allows each address a rate, as a bucket that fills evenly.

    One event loop uses it: no lock. IPv6 callers own a whole /64, so that counts as one address.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> int | None:
        """Counts one request; gives None where it is allowed, else the seconds to wait."""
        now = self._clock()
        key = _group(address)
        per_second = self.rate.amount / self.rate.seconds
        left, seen = self._buckets.pop(key, (float(self.rate.amount), now))
        left = min(float(self.rate.amount), left + (now - seen) * per_second)
        allowed = left >= 1
        self._buckets[key] = (left - 1 if allowed else left, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return None if allowed else max(1, math.ceil((1 - left) / per_second))


def _group(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(ip_network((int(parsed) >> 64 << 64, 64)))
    return address
