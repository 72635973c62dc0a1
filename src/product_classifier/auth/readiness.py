"""Whether auth can do its work, looked at in the background: a scrape must not wait for a database that hangs."""

import asyncio
import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
STALE_SECONDS = 3 * LOOK_SECONDS


class ReadinessWatch:
    """What `/ready` would say, as of the last look; no, where a look does not come back."""

    def __init__(
        self, check: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Has seen nothing yet.

        Args:
            check: Says it; may wait, it runs in a thread.
            clock: Seconds that only grow.
        """
        self._check = check
        self._clock = clock
        self._ready_at: float | None = None

    @property
    def ready(self) -> bool:
        """Whether the last look found all well, and is not long ago."""
        # Read once: a scrape asks from a thread, and the next look may end meanwhile.
        ready_at = self._ready_at
        return ready_at is not None and self._clock() - ready_at < STALE_SECONDS

    async def look(self) -> None:
        """Looks once."""
        try:
            ready = await asyncio.to_thread(self._check)
        except Exception:  # the watch goes on whatever a look ran into
            logger.exception("The watch over readiness met a fault.")
            ready = False
        self._ready_at = self._clock() if ready else None

    async def look_forever(self) -> None:
        """Looks every few seconds; one look at a time."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)
