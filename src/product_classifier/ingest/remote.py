"""Sources that are elsewhere: which files they have, where those are, and what they are now."""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from product_classifier.core.errors import SourceError
from product_classifier.core.settings import Settings
from product_classifier.ingest import http_answers
from product_classifier.ingest.download import DownloadPolicy
from product_classifier.ingest.layout import IMAGES_ARCHIVE, OPTIONAL_TABLES, REQUIRED_TABLES
from product_classifier.ingest.redaction import redact_url
from product_classifier.ingest.s3 import S3Bucket
from product_classifier.ingest.sources import Source, UnreachableError

ARCHIVE_NAME = "catalogue.zip"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a remote source. `url` may hold secrets."""

    name: str
    url: str
    required: bool


def remote_names(source: Source) -> list[tuple[str, bool]]:
    """Lists the files that a source consists of, and whether it must have them."""
    if source.is_archive:
        return [(ARCHIVE_NAME, True)]
    required = [(name, True) for name in (*REQUIRED_TABLES, IMAGES_ARCHIVE)]
    return [*required, *((name, False) for name in OPTIONAL_TABLES)]


def store_folder(source: Source, downloads: Path) -> Path:
    """Gives the folder of a source's downloads, which depends on its address without secrets."""
    parts = urlsplit(source.location)
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    return downloads / f"{parts.hostname}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"


def _address_in(location: str, name: str) -> str:
    """Gives a file's URL below a prefix, with the prefix's user and query."""
    parts = urlsplit(location)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}", fragment=""))


def remote_files(source: Source, settings: Settings) -> list[RemoteFile]:
    """Gives the address of each file of a source that may be there.

    Raises:
        UnreachableError: an S3 source does not answer.
        SourceError: it refuses.
    """
    if source.kind == "s3":
        bucket = S3Bucket(source.location, settings)
        names = [
            (name, required)
            for name, required in remote_names(source)
            if bucket.describe(name, required)
        ]
        return [RemoteFile(name, bucket.presign(name), required) for name, required in names]
    return [
        RemoteFile(
            name,
            source.location if source.is_archive else _address_in(source.location, name),
            required,
        )
        for name, required in remote_names(source)
    ]


def describe_remote(source: Source, settings: Settings) -> dict[str, Any]:
    """Asks what each file of a source is now, without fetching it.

    Returns:
        By file name: etag, last_modified and size; None where there is no such file.

    Raises:
        UnreachableError: the source does not answer.
        SourceError: it refuses.
    """
    if source.kind == "s3":
        bucket = S3Bucket(source.location, settings)
        return {name: bucket.describe(name, required) for name, required in remote_names(source)}
    return asyncio.run(
        _describe_all(remote_files(source, settings), DownloadPolicy.from_settings(settings))
    )


async def _describe_all(files: list[RemoteFile], policy: DownloadPolicy) -> dict[str, Any]:
    try:
        async with (
            asyncio.timeout(policy.window_seconds),
            httpx.AsyncClient(timeout=policy.window_seconds, follow_redirects=True) as client,
        ):
            return {file.name: await _describe(client, file) for file in files}
    except (TimeoutError, httpx.TransportError) as error:
        where = redact_url(files[0].url)
        raise UnreachableError(f"{where} can't be reached ({type(error).__name__}).") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceError(
            f"{redact_url(files[0].url)} can't be asked ({type(error).__name__})."
        ) from None


async def _describe(client: httpx.AsyncClient, file: RemoteFile) -> dict[str, Any] | None:
    headers = {"Accept-Encoding": "identity"}
    response = await client.head(file.url, headers=headers)
    if response.status_code in (405, 501):
        async with client.stream("GET", file.url, headers=headers) as response:
            pass  # the headers are all we want
    if response.status_code in http_answers.ABSENT_STATUS:
        return None
    if response.status_code in http_answers.RETRY_STATUS:
        raise UnreachableError(
            f"{redact_url(file.url)}: the server answers {response.status_code}."
        )
    if response.status_code != 200:
        raise SourceError(f"{redact_url(file.url)}: the server answers {response.status_code}.")
    identity = http_answers.Identity.of(response)
    return {
        "etag": http_answers.promised_sha256(response) or identity.etag,
        "last_modified": identity.last_modified,
        "size": http_answers.content_length(response),
    }
