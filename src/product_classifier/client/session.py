"""Tokens of one signed-in user: kept in memory, renewed before they end, never shown."""

import time
from dataclasses import dataclass, field
from typing import Any

RENEW_BEFORE_SECONDS = 30.0


@dataclass
class Session:
    """What a sign-in gave, and what it was made with for the next one."""

    username: str
    password: str = field(repr=False)
    access_token: str = field(default="", repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    ends: float = 0.0  # on the monotonic clock

    def take(self, answer: Any) -> None:
        """Keeps the tokens of an answer of `/token` or `/token/refresh`."""
        self.access_token = str(answer["access_token"])
        self.refresh_token = answer.get("refresh_token")
        self.ends = time.monotonic() + float(answer.get("expires_in", 0))

    @property
    def is_fresh(self) -> bool:
        """Whether the token will be good for a request that starts now."""
        return bool(self.access_token) and time.monotonic() < self.ends - RENEW_BEFORE_SECONDS
