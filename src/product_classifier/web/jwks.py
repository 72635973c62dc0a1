"""What `serve` verifies tokens with: auth's public keys, kept so that auth may be away for as long as it likes.

The keys are asked for every five minutes, and when a token names one that is not known: then at most once in ten
seconds, whoever sends such tokens. What was fetched last is kept in memory and in a file, and only ever replaced by a
set of keys that is usable as a whole.
"""

import asyncio
import contextlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.files import write_text_atomic
from product_classifier.core.settings import Settings
from product_classifier.web.tokens import (
    KeysUnavailable,
    TokenClaims,
    TokenError,
    TokenVerifier,
    VerificationKeys,
)

logger = logging.getLogger(__name__)

JWKS_PATH = "/.well-known/jwks.json"
MAX_BODY_BYTES = 65_536
FETCH_SECONDS = 2.0
REFRESH_SECONDS = 300.0
RETRY_SECONDS = 10.0  # after a failure, and between two askings for unknown keys

_CACHE_FILE_MODE = 0o600


class _FetchError(Exception):
    """The keys could not be had; the text is fit for a log."""


class KeySource:
    """Verifies tokens for a service that holds no private key.

    `start` and `close` belong in the service's lifespan. `verify` costs one signature check (0.1 ms) and waits for
    the network only where a token names a key that is not known.
    """

    def __init__(
        self,
        auth_url: str,
        cache_file: Path,
        *,
        secret: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        fetch_seconds: float = FETCH_SECONDS,
        refresh_seconds: float = REFRESH_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """Makes a source; nothing is read or fetched yet.

        Args:
            auth_url: Address of auth, without the path.
            cache_file: Where the last good keys are kept between runs.
            secret: HS256's secret: then nothing is ever fetched, and ES256 tokens are refused.
            transport: Stands in for the network in tests.
            clock: Seconds that only grow.
            fetch_seconds: The longest that one fetch may take in all.
            refresh_seconds: From one good fetch to the next.
            retry_seconds: From a failed fetch to the next, and between fetches for unknown keys.

        Raises:
            ConfigurationError: the secret can't be used.
        """
        self._url = auth_url.rstrip("/") + JWKS_PATH
        self._cache_file = cache_file
        self._transport = transport
        self._clock = clock
        self._fetch_seconds = fetch_seconds
        self._refresh_seconds = refresh_seconds
        self._retry_seconds = retry_seconds
        self._is_static = secret is not None
        self._jwks: dict[str, Any] | None = None
        self._verifier = TokenVerifier(secret) if secret is not None else None
        self._client: httpx.AsyncClient | None = None
        self._fetching: asyncio.Task[bool] | None = None
        self._loop_task: asyncio.Task[None] | None = None
        self._asked_at: float | None = None
        self._last_fault: str | None = None

    @classmethod
    def from_settings(cls, settings: Settings, cache_file: Path) -> "KeySource":
        """Makes the source that the settings ask for: auth's published keys, or the shared secret.

        Raises:
            ConfigurationError: ALGORITHM=HS256 without a usable SECRET_KEY.
        """
        if settings.algorithm != "HS256":
            return cls(settings.auth_url, cache_file)
        secret = settings.secret_key.get_secret_value() if settings.secret_key else ""
        return cls(settings.auth_url, cache_file, secret=secret)

    @property
    def ready(self) -> bool:
        """Whether tokens can be checked."""
        return self._verifier is not None

    async def start(self) -> None:
        """Reads the file and begins to ask auth; waits for the first answer only where the file gave no keys.

        An absent auth is no error.
        """
        if self._is_static or self._loop_task is not None:
            return
        self._client = httpx.AsyncClient(
            transport=self._transport,
            timeout=self._fetch_seconds,
            follow_redirects=False,  # keys come from the address that was set, or not at all
            trust_env=False,
        )
        self._read_cache_file()
        if not self.ready:
            await self._fetch_once()
        self._loop_task = asyncio.create_task(self._refresh_forever(), name="jwks-refresh")

    async def close(self) -> None:
        """Ends what runs in the background."""
        tasks = [task for task in (self._loop_task, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop_task = self._fetching = None
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def verify(self, token: str, now: float | None = None) -> TokenClaims:
        """Gives the claims of a token that is genuine and valid now.

        Raises:
            KeysUnavailable: no key was ever had; trying again later may help.
            TokenError: every other token that is not accepted.
        """
        if self._verifier is not None:
            try:
                return self._verifier.verify(token, now)
            except TokenError as error:
                if error.reason != "key_unknown" or not await self._ask_for_unknown():
                    raise
        elif not await self._ask_for_unknown():
            raise KeysUnavailable
        if self._verifier is None:
            raise KeysUnavailable
        return self._verifier.verify(token, now)

    async def refresh(self) -> bool:
        """Fetches now, or waits for the fetch that is under way; says whether the keys are those of auth."""
        return await self._fetch_once()

    async def _ask_for_unknown(self) -> bool:
        """Fetches if that is allowed now; says whether verifying once more makes sense."""
        if self._is_static or self._client is None:
            return False
        if self._fetching is None:
            asked = self._asked_at
            if asked is not None and self._clock() - asked < self._retry_seconds:
                return False
        return await self._fetch_once()

    async def _fetch_once(self) -> bool:
        """Joins the fetch under way or starts one; a caller that is cancelled leaves it to the others."""
        if self._fetching is None:
            self._asked_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch(), name="jwks-fetch")
            self._fetching.add_done_callback(self._forget_fetch)
        return await asyncio.shield(self._fetching)

    def _forget_fetch(self, task: asyncio.Task[bool]) -> None:
        if self._fetching is task:
            self._fetching = None

    async def _refresh_forever(self) -> None:
        while True:
            if await self._fetch_once():
                delay = self._refresh_seconds
            else:
                delay = self._retry_seconds if self.ready else min(1.0, self._retry_seconds)
            await asyncio.sleep(delay)

    async def _fetch(self) -> bool:
        try:
            async with asyncio.timeout(self._fetch_seconds):  # in all: a dripping server too
                body = await self._download()
            await self._use(_parse_object(body))
        except (_FetchError, ConfigurationError) as error:
            self._note_fault(str(error))
            return False
        except (
            Exception
        ) as error:  # whatever a wrong address or a broken peer brings: asking must go on
            self._note_fault(type(error).__name__)  # its text may hold the address
            return False
        if self._last_fault is not None:
            logger.info("The keys of auth can be fetched again")
            self._last_fault = None
        return True

    async def _download(self) -> bytes:
        if self._client is None:
            raise _FetchError("closed")
        # Nothing compressed: a small body must not become a large one here.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        async with self._client.stream("GET", self._url, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                raise _FetchError(f"answer {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _FetchError("a compressed answer")
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise _FetchError(f"an answer of more than {MAX_BODY_BYTES} bytes")
        return bytes(body)

    async def _use(self, jwks: dict[str, Any]) -> None:
        """Takes a key set in place of the last one, whole or not at all."""
        if jwks == self._jwks:
            return
        keys = VerificationKeys.from_jwks(jwks)
        self._verifier = TokenVerifier(keys)
        self._jwks = jwks
        logger.info("Keys of auth in use", extra={"kids": list(keys)})
        await asyncio.to_thread(self._write_cache_file, keys)

    def _note_fault(self, fault: str) -> None:
        """Logs the first of equal faults: auth may be away for days."""
        if fault != self._last_fault:
            logger.warning("The keys of auth can't be fetched: %s", fault)
            self._last_fault = fault

    def _write_cache_file(self, keys: VerificationKeys) -> None:
        document = {"url": self._url, "jwks": keys.to_jwks()}
        try:
            write_text_atomic(self._cache_file, json.dumps(document), mode=_CACHE_FILE_MODE)
        except OSError as error:
            logger.warning("The keys of auth are not kept for a restart: %s", error.strerror)

    def _read_cache_file(self) -> None:
        """Takes the keys of the last run if the file is ours alone and from the same address."""
        try:
            document = _read_own_file(self._cache_file)
            if document.get("url") != self._url:
                raise _FetchError("they are of another address")
            jwks = document.get("jwks")
            self._verifier = TokenVerifier(VerificationKeys.from_jwks(jwks))
        except FileNotFoundError:
            return
        except OSError as error:
            logger.warning("The kept keys of auth are not used: %s", error.strerror)
        except (_FetchError, ConfigurationError) as error:
            logger.warning("The kept keys of auth are not used: %s", error)
        else:
            self._jwks = jwks


def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise _FetchError("not JSON") from None
    if not isinstance(value, dict):
        raise _FetchError("not a JSON object")
    return value


def _read_own_file(path: Path) -> dict[str, Any]:
    """Reads a file that nobody else can have written: who writes here decides which tokens are believed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with contextlib.closing(os.fdopen(descriptor, "rb")) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise _FetchError("the file is another user's")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise _FetchError("others may write in the file")
        content = file.read(MAX_BODY_BYTES + 1)
    if len(content) > MAX_BODY_BYTES:
        raise _FetchError("the file is too large")
    return _parse_object(content)
