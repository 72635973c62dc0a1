"""The hot swap: a new bundle is verified, loaded and warmed up beside the live one, then takes its place at once."""

import asyncio
import contextlib
import logging
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

from product_classifier.core.bundle import load_bundle, read_manifest
from product_classifier.core.errors import ProductClassifierError
from product_classifier.serve.bundle_source import BundleSource, Fingerprint
from product_classifier.serve.engine import Engine
from product_classifier.serve.live_model import LiveModel

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
# Without any model, what failed once may work again: a remote that was away.
RETRY_SECONDS = 30.0

Outcome = Literal["swapped", "unchanged", "refused"]


@dataclass(frozen=True)
class Reload:
    """What became of one look at the source."""

    outcome: Outcome
    bundle_id: str | None  # of the model that is live now
    previous: str | None  # of the one before
    seconds: float
    detail: str | None = None  # why a bundle was refused


class Reloader:
    """Keeps an engine on the source's bundle: looks every second, or when it is told to."""

    def __init__(
        self, engine: Engine, source: BundleSource, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._engine, self._source, self._poll_seconds = engine, source, poll_seconds
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._seen: Fingerprint | None = None  # tried last, whatever became of it
        self._refused: Fingerprint | None = None  # told and counted already
        self._tried_at = 0.0
        self.last: Reload | None = None

    async def start(self) -> None:
        """Loads what is there, and looks again from now on; without a bundle the service is live, not ready."""
        await self._reload()
        self._task = asyncio.create_task(self._poll(), name="champion-watch")

    async def stop(self) -> None:
        """Ends the watching; a load that runs is waited for."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        async with self._lock:
            pass

    async def reload(self) -> dict[str, Any]:
        """Looks at the source now, even at what was refused before.

        Callers that come meanwhile wait for each other.

        Returns:
            `outcome` (swapped, unchanged or refused), `bundle_id`, `previous`, `seconds`, `detail`.
        """
        self._refused = None  # who asks is told, and it counts
        return asdict(await self._reload())

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                found = await asyncio.to_thread(self._source.look)
                # A bundle that was refused is tried again only when something else has been there.
                if found is not None and (found != self._seen or self._is_time_to_retry()):
                    await self._reload()
            except Exception:  # the watch goes on whatever a look ran into
                logger.exception("The watch over the champion met a fault.")

    def _is_time_to_retry(self) -> bool:
        waited = time.monotonic() - self._tried_at
        return self._engine.model is None and waited >= RETRY_SECONDS

    async def _reload(self) -> Reload:
        async with self._lock:
            # Shielded: a caller who goes must not leave a load behind that nobody waits for.
            return await asyncio.shield(asyncio.ensure_future(self._replace()))

    async def _replace(self) -> Reload:
        started = time.perf_counter()
        before = self._engine.model
        previous = before.bundle_id if before else None
        self._tried_at = time.monotonic()
        self._seen = await asyncio.to_thread(self._source.look)
        try:
            model = await asyncio.to_thread(self._load, before)
        except ProductClassifierError as error:
            return self._refuse(str(error), previous, started)
        except Exception as error:  # a source can fail in ways of its own; the old model goes on
            logger.exception("A bundle could not be loaded.")
            return self._refuse(type(error).__name__, previous, started)
        self._refused = None
        self._engine.metrics.note_sound_bundle()
        if model is None:
            return self._remember("unchanged", previous, previous, started)
        self._engine.swap(model)
        self._engine.metrics.count_swap("swapped")
        logger.info("Bundle %s is live (before: %s).", model.bundle_id, previous or "none")
        return self._remember("swapped", model.bundle_id, previous, started)

    def _load(self, live: LiveModel | None) -> LiveModel | None:
        """Loads what the source has; None where that is live already, and its files are sound."""
        folder = self._source.fetch()
        if live is not None and read_manifest(folder).content_id == live.manifest.content_id:
            load_bundle(folder)
            return None
        return LiveModel.load(folder, self._engine.hint)

    def _refuse(self, reason: str, previous: str | None, started: float) -> Reload:
        if self._seen is None and previous is None:
            logger.warning("There is no bundle to serve yet. %s", reason)
            return self._remember("refused", previous, previous, started, reason)
        self._engine.metrics.count_load_failure()
        if self._seen is None or self._seen != self._refused:
            self._refused = self._seen
            self._engine.metrics.count_swap("refused")
            logger.error("A bundle was refused; %s goes on. %s", previous or "none", reason)
        return self._remember("refused", previous, previous, started, reason)

    def _remember(
        self,
        outcome: Outcome,
        bundle_id: str | None,
        previous: str | None,
        started: float,
        detail: str | None = None,
    ) -> Reload:
        seconds = round(time.perf_counter() - started, 3)
        self.last = Reload(outcome, bundle_id, previous, seconds, detail)
        return self.last
