"""A catalogue in an S3 bucket, fetched by the HTTP downloader through signed addresses."""

from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from product_classifier.core.errors import ConfigurationError, SourceError
from product_classifier.core.settings import Settings
from product_classifier.ingest.http_answers import RETRY_STATUS
from product_classifier.ingest.sources import UnreachableError

_SIGNED_SECONDS = 24 * 3600  # a run that takes longer is started again and resumes
# boto's defaults wait over 25 s for a host that swallows packets.
_CONFIG = Config(
    connect_timeout=5,
    read_timeout=20,
    retries={"total_max_attempts": 2, "mode": "standard"},
    signature_version="s3v4",
)
_DEFAULT_REGION = "us-east-1"  # what S3 compatible servers expect where none is set


class S3Bucket:
    """Files below one `s3://bucket/prefix`, or one zip there."""

    def __init__(self, location: str, settings: Settings) -> None:
        """Takes bucket and prefix from the address, endpoint and keys from the settings."""
        parts = urlsplit(location)
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._settings = settings

    @cached_property
    def _client(self) -> Any:
        options = self._settings.s3_credentials()
        session = boto3.Session(
            aws_access_key_id=options.get("access_key_id"),
            aws_secret_access_key=options.get("secret_access_key"),
        )
        region = session.region_name or _DEFAULT_REGION
        return session.client(
            "s3", endpoint_url=options.get("endpointurl"), region_name=region, config=_CONFIG
        )

    def _key(self, name: str) -> str:
        if self._prefix.lower().endswith(".zip"):
            return self._prefix
        return f"{self._prefix}/{name}" if self._prefix else name

    def describe(self, name: str, required: bool) -> dict[str, Any] | None:
        """Asks what a file is now: etag, last_modified, size; None where an optional one is absent.

        Raises:
            ConfigurationError: there are no credentials.
            UnreachableError: the server does not answer.
            SourceError: it refuses, or lacks a required file.
        """
        try:
            answer = self._client.head_object(Bucket=self._bucket, Key=self._key(name))
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            # Without the right to list, S3 answers 403 for what is not there.
            if status in (403, 404) and not required:
                return None
            message = f"s3://{self._bucket}/{self._key(name)}: the server answers {status}."
            raise (UnreachableError if status in RETRY_STATUS else SourceError)(message) from None
        except (NoCredentialsError, PartialCredentialsError):
            raise ConfigurationError(
                "The S3 source needs credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            ) from None
        except BotoCoreError as error:
            raise UnreachableError(
                f"s3://{self._bucket} can't be reached ({type(error).__name__})."
            ) from None
        moment = answer["LastModified"].strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"etag": answer["ETag"], "last_modified": moment, "size": answer["ContentLength"]}

    def presign(self, name: str) -> str:
        """Gives an address that lets its holder read one file for a day: a secret."""
        parameters = {"Bucket": self._bucket, "Key": self._key(name)}
        url: str = self._client.generate_presigned_url(
            "get_object", Params=parameters, ExpiresIn=_SIGNED_SECONDS
        )
        return url
