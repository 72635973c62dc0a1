"""Reads what an HTTP answer says about a file: its identity, its size, and when to come back."""

import email.utils
import re
import time
from dataclasses import dataclass

import httpx

RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
ABSENT_STATUS = frozenset({404, 410})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_UNSATISFIED_RANGE = re.compile(r"bytes \*/(\d+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Identity:
    """What tells one version of a remote file from another."""

    etag: str | None = None
    last_modified: str | None = None

    @classmethod
    def of(cls, response: httpx.Response) -> "Identity":
        """Reads the validators of an answer."""
        return cls(response.headers.get("etag"), response.headers.get("last-modified"))

    @property
    def if_range(self) -> str | None:
        """The validator of a resumed request: no weak ETag is allowed there (RFC 9110, 13.1.5)."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    def same_as(self, other: "Identity") -> bool:
        """Says whether both surely are one version; without validators nothing is sure."""
        if self.etag and other.etag:
            return self.etag.removeprefix("W/") == other.etag.removeprefix("W/")
        return self.last_modified is not None and self.last_modified == other.last_modified


def promised_sha256(response: httpx.Response) -> str | None:
    """Gives the content's SHA-256 where the server states it, as Hugging Face does."""
    for answer in (*response.history, response):
        text: str = answer.headers.get("x-linked-etag", "").strip('"')
        if _SHA256.fullmatch(text):
            return text
    return None


def is_encoded(response: httpx.Response) -> bool:
    """Says whether the body is compressed in transit, so that its length is not the file's."""
    return response.headers.get("content-encoding", "identity").lower() not in ("", "identity")


def content_length(response: httpx.Response) -> int | None:
    """Gives the promised length of the body in bytes."""
    text = response.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def content_range(response: httpx.Response) -> tuple[int, int | None] | None:
    """Gives the first byte and the total size that a partial answer states."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
    if match is None:
        return None
    return int(match[1]), None if match[3] == "*" else int(match[3])


def unsatisfied_total(response: httpx.Response) -> int | None:
    """Gives the file's size from an answer 416."""
    match = _UNSATISFIED_RANGE.fullmatch(response.headers.get("content-range", "").strip())
    return int(match[1]) if match else None


def retry_after_seconds(response: httpx.Response) -> float | None:
    """Gives the wait that `Retry-After` asks for, as seconds or as a date."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return max(0.0, moment.timestamp() - time.time())
