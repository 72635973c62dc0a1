"""Lockout: so many failures of one user name from one address within a window lock that pair out for a while.

In the database, so that it outlives a restart and holds for all processes on one database. Guesses made side by side
don't get around it: an attempt waits while the ones before it, if they all fail, would use up what is left. That
holds within a process; beside it, each further process allows at most as many guesses again.
"""

import asyncio
import ipaddress
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from product_classifier.auth.audit import AuditEvent, AuditLog, Origin
from product_classifier.auth.database import Database
from product_classifier.auth.errors import LockedOut
from product_classifier.auth.tables import LoginFailureRow, LoginLockRow
from product_classifier.auth.users import name_key
from product_classifier.core.files import sha256_bytes


@dataclass(frozen=True)
class LockoutRule:
    """When a pair is locked out and for how long; no failures means never."""

    failures: int
    window_seconds: float
    lock_seconds: float


def attempt_key(name: str, address: str | None) -> str:
    """Gives the key of a user name and an address. One host has a whole /64 of IPv6, so that counts as one."""
    text = f"{name_key(name)}\0{_network(address or '')}"
    return sha256_bytes(text.encode(errors="surrogatepass"))


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return str(parsed)


class Attempt:
    """One sign-in under way. It counts as neither right nor wrong until told."""

    def __init__(self) -> None:
        self.succeeded: bool | None = None
        self.locked_now = False


class Lockout:
    """Counts failures and holds attempts back."""

    def __init__(
        self,
        database: Database,
        rule: LockoutRule,
        audit: AuditLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._rule = rule
        self._audit = audit
        self._clock = clock
        self._in_flight: Counter[str] = Counter()  # bounded by the hashing queue
        self._settled = asyncio.Condition()

    def failures(self, key: str) -> int:
        """Counts what a pair has left behind.

        Raises:
            LockedOut: it may not try now.
        """
        now = self._clock()
        with self._database.read() as db:
            until = db.scalar(
                select(LoginLockRow.locked_until).where(LoginLockRow.attempt_key == key)
            )
            if until is not None and until > now:
                raise LockedOut(max(1, math.ceil(until - now)))
            return self._count(db, key, now)

    def _count(self, db: Session, key: str, now: float) -> int:
        query = select(func.count()).where(
            LoginFailureRow.attempt_key == key,
            LoginFailureRow.failed_at > now - self._rule.window_seconds,
        )
        return db.scalar(query) or 0

    async def check(self, key: str) -> None:
        """Refuses a pair that is locked out, without waiting for others.

        Raises:
            LockedOut: it is.
        """
        if self._rule.failures:
            await run_in_threadpool(self.failures, key)

    @asynccontextmanager
    async def attempt(
        self, key: str, origin: Origin, subject: str | None
    ) -> AsyncIterator[Attempt]:
        """Holds an attempt: set its `succeeded` inside the block.

        Args:
            key: The pair.
            origin: Who tries, for the audit trail.
            subject: Name of the user, None where no user has it.

        Raises:
            LockedOut: the pair may not try now.
        """
        attempt = Attempt()
        if not self._rule.failures:
            yield attempt
            return
        await self._enter(key)
        try:
            yield attempt
        finally:
            try:
                async with self._settled:
                    attempt.locked_now = await run_in_threadpool(
                        self._settle, key, attempt.succeeded, origin, subject
                    )
            finally:
                await self._leave(key)

    async def _enter(self, key: str) -> None:
        async with self._settled:
            while True:
                # Under the condition's lock nobody settles between this count and our place.
                failures = await run_in_threadpool(self.failures, key)
                if failures + self._in_flight[key] < self._rule.failures:
                    self._in_flight[key] += 1
                    return
                await self._settled.wait()

    async def _leave(self, key: str) -> None:
        async with self._settled:
            self._in_flight[key] -= 1
            if self._in_flight[key] <= 0:
                del self._in_flight[key]
            self._settled.notify_all()

    def _settle(
        self, key: str, succeeded: bool | None, origin: Origin, subject: str | None
    ) -> bool:
        """Writes an attempt's end down, and says whether it locked the pair out."""
        if succeeded is None:
            return False
        now = self._clock()
        with self._database.write() as db:
            if succeeded:
                db.execute(delete(LoginFailureRow).where(LoginFailureRow.attempt_key == key))
                return False
            db.add(LoginFailureRow(attempt_key=key, failed_at=now))
            db.flush()
            if self._count(db, key, now) < self._rule.failures:
                return False
            db.execute(delete(LoginFailureRow).where(LoginFailureRow.attempt_key == key))
            db.merge(LoginLockRow(attempt_key=key, locked_until=now + self._rule.lock_seconds))
            self._audit.record(db, AuditEvent.LOCKED_OUT, origin, subject)
            return True

    def clean_up(self, db: Session) -> None:
        """Removes what no longer counts."""
        now = self._clock()
        db.execute(delete(LoginLockRow).where(LoginLockRow.locked_until <= now))
        db.execute(
            delete(LoginFailureRow).where(
                LoginFailureRow.failed_at <= now - self._rule.window_seconds
            )
        )
