"""Fetches a file over HTTP so that nothing is lost, nothing is half there, and nothing hangs.

Broken transfers are resumed where they stopped, if the server still has the same version; waits
grow between attempts and follow `Retry-After`. A server that drips bytes defeats read timeouts, so
a window of time must also bring a minimum of bytes. A finished file is asked for again only as
"has it changed?".
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import tenacity

from product_classifier.core.errors import SourceError
from product_classifier.core.files import CHUNK_BYTES, sha256_file
from product_classifier.core.progress import report_progress
from product_classifier.core.settings import Settings
from product_classifier.ingest import http_answers
from product_classifier.ingest.download_store import DownloadStore, Record
from product_classifier.ingest.http_answers import Identity
from product_classifier.ingest.redaction import redact_url

logger = logging.getLogger(__name__)

_REVALIDATION_ATTEMPTS = 2  # with an intact copy at hand, an absent server must not cost minutes


@dataclass(frozen=True)
class DownloadPolicy:
    """How patient a download is."""

    window_seconds: float = 60  # in which `window_bytes` must arrive
    window_bytes: int = 64 * 1024
    attempts: int = 6  # in a row without progress
    backoff_seconds: float = 1  # first wait; doubles up to `backoff_cap_seconds`
    backoff_cap_seconds: float = 60
    retry_after_cap_seconds: float = 300

    @classmethod
    def from_settings(cls, settings: Settings) -> "DownloadPolicy":
        """Takes over what the deployment sets."""
        return cls(
            window_seconds=settings.download_timeout_seconds, attempts=settings.download_attempts
        )


class _TransferError(Exception):
    """An attempt failed in a way that another one may not."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class _AbsentError(Exception):
    """The server says that there is no such file."""


@dataclass
class _Transfer:
    """One file on its way: what is known and how often nothing came."""

    name: str
    url: str
    kept: Record | None
    best: int = 0  # most bytes that any attempt had
    idle: int = 0  # attempts in a row without progress


@dataclass(frozen=True)
class _Received:
    """What the server promised about the file whose last byte has come."""

    total: int | None
    sha256: str | None


class Downloader:
    """Fetches files of one source into its store."""

    def __init__(self, store: DownloadStore, policy: DownloadPolicy) -> None:
        """Uses `store` for files and `policy` for patience."""
        self._store = store
        self._policy = policy

    def fetch(self, name: str, url: str) -> Path | None:
        """Brings a file here, or makes sure that the one that is here still is the server's.

        Args:
            name: File name in the store.
            url: Address; user, password and query are used, but never shown or stored.

        Returns:
            The file, complete; None where the server says that there is none.

        Raises:
            SourceError: the server refuses, can't be reached, or keeps breaking off.
        """
        kept = self._store.verified(name)
        transfer = _Transfer(name, url, kept)
        attempts = (
            min(self._policy.attempts, _REVALIDATION_ATTEMPTS) if kept else self._policy.attempts
        )
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransferError),
            stop=lambda _: transfer.idle >= attempts,
            wait=self._wait,
            before_sleep=lambda state: self._log_retry(transfer, state),
            reraise=True,
        )
        try:
            retrying(self._attempt, transfer)
        except _AbsentError:
            self._store.forget(name)
            return None
        except _TransferError as error:
            if transfer.kept is None:
                where = redact_url(url)
                raise SourceError(
                    f"{where} can't be fetched, {transfer.idle} attempts failed: {error}"
                ) from None
            logger.warning(
                "%s can't be reached (%s): using the intact earlier download",
                redact_url(url),
                error,
            )
        return self._store.path(name)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        policy = self._policy
        wait: float = min(
            policy.backoff_seconds * 2 ** (state.attempt_number - 1), policy.backoff_cap_seconds
        )
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, _TransferError) else None
        return max(wait, min(asked or 0, policy.retry_after_cap_seconds))

    def _log_retry(self, transfer: _Transfer, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0
        logger.warning("%s: %s; trying again in %.1f s", redact_url(transfer.url), error, wait)

    def _attempt(self, transfer: _Transfer) -> None:
        try:
            # Hashing stays outside: it may take longer than the window in which bytes must arrive.
            if (received := asyncio.run(self._receive(transfer))) is not None:
                self._finish(transfer, received)
        except TimeoutError:
            self._note_failure(transfer)
            limit = f"{self._policy.window_bytes} bytes in {self._policy.window_seconds:g} s"
            raise _TransferError(f"less than {limit} arrived") from None
        except httpx.InvalidURL:
            raise SourceError(f"{redact_url(transfer.url)} is no usable address.") from None
        except httpx.HTTPError as error:
            # Only the kind of error: httpx's own texts may repeat the address with its secrets.
            self._note_failure(transfer)
            raise _TransferError(f"the connection failed ({type(error).__name__})") from None
        except _TransferError:
            self._note_failure(transfer)
            raise
        except OSError as error:
            raise SourceError(f"{transfer.name} can't be written: {error.strerror}.") from error

    def _note_failure(self, transfer: _Transfer) -> None:
        size = self._part_size(transfer.name)
        progressed = size - transfer.best >= self._policy.window_bytes
        transfer.idle = 1 if progressed else transfer.idle + 1
        transfer.best = max(transfer.best, size)

    def _part_size(self, name: str) -> int:
        part = self._store.part(name)
        return part.stat().st_size if part.exists() else 0

    def _request_headers(self, transfer: _Transfer) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        size, identity = self._part_size(transfer.name), self._store.part_identity(transfer.name)
        if size and identity.if_range:
            headers |= {"Range": f"bytes={size}-", "If-Range": identity.if_range}
        elif transfer.kept is not None:
            if transfer.kept.identity.etag:
                headers["If-None-Match"] = transfer.kept.identity.etag
            if transfer.kept.identity.last_modified:
                headers["If-Modified-Since"] = transfer.kept.identity.last_modified
        return headers

    async def _receive(self, transfer: _Transfer) -> _Received | None:
        """Asks for what is missing and writes it; gives None where nothing has to be done."""
        headers = self._request_headers(transfer)
        timeout = httpx.Timeout(self._policy.window_seconds)
        async with (
            # The deadline covers name resolution, connecting and headers too, however slowly they
            # drip.
            asyncio.timeout(self._policy.window_seconds) as deadline,
            httpx.AsyncClient(timeout=timeout, follow_redirects=True) as client,
            client.stream("GET", transfer.url, headers=headers) as response,
        ):
            _refuse_downgrade(transfer.url, response)
            if self._is_unchanged(transfer, response):
                self._store.drop_part(transfer.name)
                return None
            if response.status_code == 416:
                total = self._size_of_complete_part(transfer, response)
            else:
                total = self._prepare_part(transfer, response)
                await self._write_body(transfer, response, total, deadline)
            return _Received(total, http_answers.promised_sha256(response))

    def _is_unchanged(self, transfer: _Transfer, response: httpx.Response) -> bool:
        status = response.status_code
        if status in http_answers.RETRY_STATUS:
            raise _TransferError(
                f"the server answers {status}", http_answers.retry_after_seconds(response)
            )
        if status in http_answers.ABSENT_STATUS:
            raise _AbsentError
        if status not in (200, 206, 304, 416):
            hint = " Check the credentials." if status in (401, 403) else ""
            raise SourceError(f"{redact_url(transfer.url)}: the server answers {status}.{hint}")
        if transfer.kept is None:
            return False
        if status == 304:
            return True
        # A server that ignores If-None-Match sends everything, but under the same ETag.
        return status == 200 and transfer.kept.identity.same_as(Identity.of(response))

    def _size_of_complete_part(self, transfer: _Transfer, response: httpx.Response) -> int | None:
        """Handles a transfer that was killed after its last byte: nothing is left to ask for."""
        total = http_answers.unsatisfied_total(response)
        if total is None or total != self._part_size(transfer.name):
            self._store.drop_part(transfer.name)
            raise _TransferError("the server can't continue the transfer; starting over")
        return total

    def _prepare_part(self, transfer: _Transfer, response: httpx.Response) -> int | None:
        """Makes the unfinished file ready for the body; gives the total size, if known."""
        name, size = transfer.name, self._part_size(transfer.name)
        if response.status_code == 206:
            start = http_answers.content_range(response)
            expected, found = self._store.part_identity(name), Identity.of(response)
            changed = found != Identity() and not expected.same_as(found)
            if start is None or start[0] != size or changed or http_answers.is_encoded(response):
                self._store.drop_part(name)
                raise _TransferError("the server continues another version or place; starting over")
            return start[1]
        if response.status_code != 200:
            raise _TransferError(
                f"the server answers {response.status_code} without being asked for it"
            )
        transfer.kept = None  # what is here is not the server's version any more
        identity = Identity() if http_answers.is_encoded(response) else Identity.of(response)
        self._store.start_part(name, identity)
        return None if http_answers.is_encoded(response) else http_answers.content_length(response)

    async def _write_body(
        self,
        transfer: _Transfer,
        response: httpx.Response,
        total: int | None,
        deadline: asyncio.Timeout,
    ) -> None:
        chunks: AsyncIterator[bytes] = (
            response.aiter_bytes(CHUNK_BYTES)
            if http_answers.is_encoded(response)
            else response.aiter_raw()
        )
        loop = asyncio.get_running_loop()
        pending = 0
        with (
            report_progress(f"Downloading {transfer.name}", total, "bytes") as progress,
            self._store.part(transfer.name).open("ab", buffering=0) as file,
        ):
            progress.advance(file.tell())
            async for chunk in chunks:
                file.write(chunk)
                progress.advance(len(chunk))
                pending += len(chunk)
                if pending >= self._policy.window_bytes:
                    pending = 0
                    deadline.reschedule(loop.time() + self._policy.window_seconds)

    def _finish(self, transfer: _Transfer, received: _Received) -> None:
        name, size, total = transfer.name, self._part_size(transfer.name), received.total
        if total is not None and size < total:
            raise _TransferError(f"the transfer ended after {size} of {total} bytes")
        sha256 = sha256_file(self._store.part(name))
        if (total is not None and size > total) or received.sha256 not in (None, sha256):
            self._store.drop_part(name)
            raise _TransferError("what arrived is not what the server promised; starting over")
        identity = self._store.part_identity(name)
        self._store.finish_part(name, Record(size, sha256, identity))


def _refuse_downgrade(url: str, response: httpx.Response) -> None:
    if url.lower().startswith("https:") and response.url.scheme != "https":
        raise SourceError(f"{redact_url(url)} leads to an unencrypted address.")
