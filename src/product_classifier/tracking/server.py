"""Reaching the MLflow server: address, credentials, time limits.

MLflow's client takes credentials and limits from the environment only, and with its defaults a
server that is away costs more than 40 seconds. So both are set for as long as we talk to it; what
the user has set stays as it is.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from product_classifier.core.deadline import DeadlineExceeded, within
from product_classifier.core.errors import ProductClassifierError, TrackingError
from product_classifier.core.settings import Settings
from product_classifier.tracking.scrub import scrub_text

_LIMITS = (
    "MLFLOW_HTTP_REQUEST_TIMEOUT",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR",  # seconds
)
_ANSWER_SECONDS = 15.0  # for the first answer in all, whatever keeps the reads from timing out
_ASKING = dict(zip(_LIMITS, ("2", "1", "1"), strict=True))  # away: found out in 4 seconds
_WORKING = dict(zip(_LIMITS, ("30", "2", "1"), strict=True))  # a large file needs longer
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout carries JSON lines only
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


class ServerAway(TrackingError):
    """The server does not answer or does not let us in: no other run will get there now."""


class ServerTooSlow(ServerAway, DeadlineExceeded):
    """The server went on answering for longer than it may, as one that drips bytes does."""


@dataclass(frozen=True)
class Address:
    """Where the server is and how to sign in."""

    uri: str
    username: str | None
    password: str | None


@dataclass(frozen=True)
class Server:
    """A server that answered."""

    client: Any  # mlflow.MlflowClient, which mypy does not see
    uri: str
    deadline: float  # time.monotonic()
    secrets: tuple[str, ...]

    def check_deadline(self) -> None:
        """Ends an upload that takes too long.

        Raises:
            TrackingError: the time set in MLFLOW_UPLOAD_TIMEOUT_SECONDS is over.
        """
        if time.monotonic() > self.deadline:
            raise TrackingError("The upload took longer than MLFLOW_UPLOAD_TIMEOUT_SECONDS.")


def find_address(settings: Settings) -> Address:
    """Takes credentials out of the address, so that it can be shown."""
    uri = settings.tracking_uri(f"http://127.0.0.1:{settings.mlflow_port}")
    username, password = settings.tracking_credentials() or (None, None)
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        username = username or unquote(parts.username or "")
        password = password or unquote(parts.password or "")
        uri = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return Address(uri, username, password)


@contextmanager
def _environment(values: dict[str, str], credentials: dict[str, str]) -> Iterator[None]:
    ours = {name: value for name, value in values.items() if name not in os.environ} | credentials
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def connect(settings: Settings) -> Iterator[Server]:
    """Opens the server of the settings; a server that is away costs a few seconds.

    Raises:
        ServerAway: it does not answer or does not let us in, or mlflow is not installed.
        TrackingError: it broke off. Neither message holds a credential.
    """
    address = find_address(settings)
    credentials: dict[str, str] = {}
    if address.username and address.password:
        credentials["MLFLOW_TRACKING_USERNAME"] = address.username
        credentials["MLFLOW_TRACKING_PASSWORD"] = address.password
    secrets = (address.password,) if address.password else ()
    trouble: type[TrackingError] = ServerAway
    try:
        with _environment(_QUIET, {}):
            with _environment(_ASKING, credentials):
                from mlflow import MlflowClient

                client = MlflowClient(tracking_uri=address.uri, registry_uri=address.uri)
                within(
                    _ANSWER_SECONDS,
                    f"An answer of MLflow at {address.uri}",
                    lambda: client.search_experiments(max_results=1),
                    ServerTooSlow,
                )
            trouble = TrackingError
            deadline = time.monotonic() + settings.mlflow_upload_timeout_seconds
            with _environment(_WORKING, credentials):
                yield Server(client, address.uri, deadline, secrets)
    except ProductClassifierError:
        raise
    except Exception as error:  # MLflow, requests, urllib3 and the OS each raise their own
        message = scrub_text(str(error), secrets)
        # `from None`: the chained error would carry what was scrubbed.
        raise trouble(f"MLflow at {address.uri}: {message}") from None
