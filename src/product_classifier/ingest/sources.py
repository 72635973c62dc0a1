"""What `DATA_SOURCE` may say, and how each kind becomes a catalogue on disk."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from product_classifier.core.errors import ConfigurationError, SourceError
from product_classifier.core.settings import Settings
from product_classifier.ingest.redaction import redact_url

Kind = Literal["sample", "rakuten", "folder", "zip", "http", "s3"]

ALLOWED = "sample, rakuten, a folder, a zip file, an https:// address or an s3:// address"
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*://")


class UnreachableError(SourceError):
    """The source does not answer now; what was fetched or known earlier may serve."""


@dataclass(frozen=True)
class Source:
    """A resolved data source. `location` is a URL or a path; it may hold secrets: log `shown`."""

    kind: Kind
    location: str = ""

    @property
    def is_archive(self) -> bool:
        """Says whether the location is one zip that holds everything."""
        return urlsplit(self.location).path.lower().endswith(".zip")

    @property
    def is_remote(self) -> bool:
        """Says whether the source is on another machine."""
        return self.kind in ("rakuten", "http", "s3")

    @property
    def shown(self) -> str:
        """The source without secrets, for logs and for the probe."""
        if self.is_remote:
            return f"{self.kind}: {redact_url(self.location)}"
        return f"{self.kind}: {self.location}" if self.location else self.kind

    @property
    def name(self) -> str:
        """The source as published reports call it: the same on every machine."""
        if self.kind in ("folder", "zip"):
            return f"{self.kind} {Path(self.location).name}"
        return self.shown


def resolve_source(text: str, settings: Settings, base: Path) -> Source:
    """Finds out what a data source means.

    Args:
        text: What the user wrote, for example in `DATA_SOURCE`.
        settings: Gives the address behind `rakuten`.
        base: The folder that a relative path starts from.

    Raises:
        ConfigurationError: it is none of the allowed kinds; says which are.
    """
    text = text.strip()
    if text == "sample":
        return Source("sample")
    if text == "rakuten":
        return Source("rakuten", settings.rakuten_base_url)
    if _SCHEME.match(text):
        return _resolve_url(text)
    path = base / Path(text).expanduser()
    if text and path.is_dir():
        return Source("folder", str(path))
    if text and path.is_file() and path.suffix.lower() == ".zip":
        return Source("zip", str(path))
    raise ConfigurationError(f"Unknown data source. Expected {ALLOWED}. Received: {text!r}.")


def _resolve_url(text: str) -> Source:
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        host, parts = None, urlsplit("")
    if host and parts.scheme.lower() in ("http", "https"):
        return Source("http", text)
    if host and parts.scheme.lower() == "s3" and "@" not in parts.netloc:
        return Source("s3", text)
    raise ConfigurationError(
        f"Unknown data source. Expected {ALLOWED}. Received: {redact_url(text)!r}."
    )
