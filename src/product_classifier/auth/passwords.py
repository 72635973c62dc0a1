"""Passwords: what a new one must be like, and bcrypt in a few threads behind a bounded queue.

bcrypt at cost 12 takes 280 ms of a processor, so sign-ins are the cheapest way to keep a service busy. At most
`queue` of them wait; more are refused at once. bcrypt lets other threads run while it works.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import bcrypt

from product_classifier.auth.errors import HashingBusy, PasswordRefused
from product_classifier.core.settings import (
    MAX_PASSWORD_BYTES,
    MIN_PASSWORD_CHARACTERS,
    is_placeholder,
)

ROUNDS = 12
_NICENESS = 5


def check_new_password(password: str, name: str = "The password") -> None:
    """Checks the rules for a new password.

    Args:
        password: The new password.
        name: What the message calls it, as a setting's name.

    Raises:
        PasswordRefused: it breaks a rule; the message does not repeat it.
    """
    problem = _problem(password)
    if problem:
        raise PasswordRefused(f"{name} {problem}")


def _problem(password: str) -> str | None:
    if len(password) < MIN_PASSWORD_CHARACTERS:
        return f"must have at least {MIN_PASSWORD_CHARACTERS} characters. It has {len(password)}."
    encoded = _encode(password)
    if encoded is None:
        return "must be text without NUL or half a surrogate pair."
    if len(encoded) > MAX_PASSWORD_BYTES:
        return (
            f"must have at most {MAX_PASSWORD_BYTES} bytes in UTF-8, bcrypt's limit. "
            f"It has {len(encoded)}."
        )
    if is_placeholder(password):
        return "is a placeholder. Choose one that is in no example."
    return None


def _encode(password: str) -> bytes | None:
    try:
        encoded = password.encode()
    except UnicodeEncodeError:
        return None
    return None if b"\0" in encoded else encoded


def _hash(password: str, rounds: int) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds)).decode()


def matches(password: str, password_hash: str) -> bool:
    """Says whether a password belongs to a hash; always one bcrypt, also for one that can't belong to any."""
    encoded = _encode(password)
    possible = encoded is not None and len(encoded) <= MAX_PASSWORD_BYTES
    matched = bcrypt.checkpw(encoded if possible and encoded else b"-", password_hash.encode())
    return matched and possible and bool(encoded)


def hash_password(password: str, rounds: int = ROUNDS) -> str:
    """Hashes a new password.

    Raises:
        PasswordRefused: the password breaks a rule.
    """
    check_new_password(password)
    return _hash(password, rounds)


def _give_way() -> None:
    # On Linux a thread has its own niceness: the event loop answers first when all processors hash.
    with contextlib.suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class PasswordHasher:
    """Hashes and verifies in threads of its own, and refuses work beyond its queue."""

    def __init__(self, queue: int, rounds: int = ROUNDS, workers: int | None = None) -> None:
        """Starts no thread yet.

        Args:
            queue: How many may wait for a processor.
            rounds: bcrypt's cost; every hash costs 2 to the power of it.
            workers: Threads. Default: one per processor that this process may use.
        """
        self.rounds = rounds
        self.workers = workers or len(os.sched_getaffinity(0))
        self._places = self.workers + queue
        self._taken = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(
            self.workers, thread_name_prefix="bcrypt", initializer=_give_way
        )
        # A well-formed hash that nothing is known to match; for names that have none. Costs what a real one does.
        self._dummy = (bcrypt.gensalt(rounds) + b"." * 31).decode()

    @property
    def waiting(self) -> int:
        """How many wait or are worked on."""
        return self._taken

    @contextmanager
    def place(self) -> Iterator[None]:
        """Takes a place in the queue for the block.

        Raises:
            HashingBusy: there is none.
        """
        with self._lock:
            if self._taken >= self._places:
                raise HashingBusy("Too many sign-ins at a time. Try again in a moment.")
            self._taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Says whether the password belongs to the hash; no hash costs the same and is never right.

        Hold a `place` while waiting for the answer.
        """
        loop = asyncio.get_running_loop()
        known = await loop.run_in_executor(
            self._pool, matches, password, password_hash or self._dummy
        )
        return known and password_hash is not None

    async def hash(self, password: str) -> str:
        """Hashes a new password.

        Raises:
            PasswordRefused: the password breaks a rule.
            HashingBusy: the queue is full.
        """
        check_new_password(password)
        with self.place():
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, _hash, password, self.rounds)

    def close(self) -> None:
        """Ends the threads when what they work on is done."""
        self._pool.shutdown(wait=True, cancel_futures=True)
