"""Asks DagsHub whether the settings work: token, repository, MLflow, storage. Writes nothing there.

Every question is bounded by a total time, since a server that drips bytes never trips a read time limit.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from product_classifier.core.deadline import DeadlineExceeded, within
from product_classifier.core.settings import Settings
from product_classifier.runtime.findings import Finding

logger = logging.getLogger(__name__)

T = TypeVar("T")

ANSWER_SECONDS = 10.0
_CONNECT_SECONDS = 5.0
_REFUSED = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)


class _Trouble(Exception):
    """What stands against using a service, as a sentence for a person; holds no secret."""


def check_dagshub(settings: Settings) -> Iterable[Finding]:
    """Checks token, repository, MLflow and storage, in that order; stops where going on tells nothing new."""
    slug, token = settings.dagshub_slug(), settings.dagshub_token
    if token is None or slug is None:
        yield from _check_set(settings)
        return
    try:
        yield _check_token(settings, token.get_secret_value())
        yield _check_repository(settings, slug, token.get_secret_value())
    except _Trouble as trouble:
        yield Finding("fail", "DagsHub", str(trouble))
        return
    checks: dict[str, Callable[[], str]] = {}
    if settings.is_on_dagshub(settings.tracking_uri("")):
        checks["DagsHub MLflow"] = lambda: _check_mlflow(settings)
    if settings.is_on_dagshub(settings.s3_credentials().get("endpointurl")):
        checks["DagsHub storage"] = lambda: _check_storage(settings)
    for subject, check in checks.items():
        try:
            yield Finding("ok", subject, check())
        except _Trouble as trouble:
            yield Finding("fail", subject, str(trouble))


def _check_set(settings: Settings) -> Iterable[Finding]:
    if settings.dagshub_token:
        message = "set, but no repository: set DAGSHUB_REPOSITORY=owner/name or MLFLOW_TRACKING_URI"
        yield Finding("warn", "DAGSHUB_TOKEN", message)
    elif settings.dagshub_slug():
        message = "not set: DagsHub will refuse to store anything; `product-classifier dagshub login` sets it"
        yield Finding("warn", "DAGSHUB_TOKEN", message)


def _bounded(what: str, action: Callable[[], T]) -> T:
    try:
        return within(ANSWER_SECONDS, what, action)
    except DeadlineExceeded as error:
        raise _Trouble(
            f"{error} The pipeline keeps what it can't send and sends it later."
        ) from None


def _ask(settings: Settings, url: str, **options: Any) -> httpx.Response:
    def get() -> httpx.Response:
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=_CONNECT_SECONDS)
        return httpx.get(url, timeout=timeout, follow_redirects=False, **options)

    host = urlsplit(url).netloc
    try:
        answer = _bounded(f"An answer of {host}", get)
    except httpx.HTTPError as error:
        raise _Trouble(
            f"{host} can't be reached ({type(error).__name__}: {error}): check the network, a proxy "
            "(HTTPS_PROXY) and DAGSHUB_URL."
        ) from None
    if answer.status_code in _REFUSED:
        raise _Trouble(_say_refused(settings, answer))
    if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise _Trouble(f"{host} is in trouble itself: it answered {answer.status_code}. Try later.")
    return answer


def _say_refused(settings: Settings, answer: httpx.Response) -> str:
    expired = "expired" in answer.text.lower()
    what = "has expired" if expired else "is wrong, was revoked or has expired"
    return (
        f"DAGSHUB_TOKEN {what} (DagsHub answered {answer.status_code}): make a new one at "
        f"{settings.dagshub_url}/user/settings/tokens, or `product-classifier dagshub login`."
    )


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise _Trouble(
            f"{answer.url.host} answered {answer.status_code} with something that is not DagsHub's: "
            "check DAGSHUB_URL and a proxy's sign-in page."
        )
    return content


def _check_token(settings: Settings, token: str) -> Finding:
    answer = _ask(settings, f"{settings.dagshub_url}/api/v1/user", headers=_bearer(token))
    user = _json(answer).get("username")
    if not answer.is_success or not user:
        raise _Trouble(
            f"{settings.dagshub_url} does not say whose token this is: {answer.status_code}."
        )
    named = settings.dagshub_username
    if named and named.lower() != str(user).lower():
        return Finding("warn", "DAGSHUB_USERNAME", f"is {named}, but the token is {user}'s")
    return Finding("ok", "DAGSHUB_TOKEN", f"{user}'s")


def _check_repository(settings: Settings, slug: str, token: str) -> Finding:
    url = f"{settings.dagshub_url}/api/v1/repos/{slug}"
    answer = _ask(settings, url, headers=_bearer(token))
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise _Trouble(
            f"there is no repository {slug}, or this token may not see it: check the spelling, or make it "
            f"with `product-classifier dagshub init {slug}`."
        )
    permissions = _json(answer).get("permissions") or {}
    if permissions.get("push") is False:
        raise _Trouble(
            f"the token may read {slug}, but not write to it: ask its owner for the right."
        )
    return Finding("ok", "DAGSHUB_REPOSITORY", f"{settings.dagshub_url}/{slug}")


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _check_mlflow(settings: Settings) -> str:
    uri = settings.tracking_uri("").rstrip("/")
    query = {"max_results": "1"}
    answer = _ask(
        settings,
        f"{uri}/api/2.0/mlflow/experiments/search",
        params=query,
        auth=settings.tracking_credentials(),
    )
    if not answer.is_success:
        raise _Trouble(
            f"{uri} answered {answer.status_code}: is it the address of this repository?"
        )
    return f"{uri} answers"


def _check_storage(settings: Settings) -> str:
    """Lists the bucket; nothing of botocore's is shown, which may repeat a key."""
    from boto3 import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    options, bucket = settings.s3_credentials(), urlsplit(settings.remote_url("")).netloc

    def listing() -> None:
        client = Session().client(
            "s3",
            region_name="us-east-1",
            endpoint_url=options["endpointurl"],
            aws_access_key_id=options.get("access_key_id"),
            aws_secret_access_key=options.get("secret_access_key"),
            config=Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=ANSWER_SECONDS,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
            ),
        )
        client.list_objects_v2(Bucket=bucket, MaxKeys=1)

    address = f"s3://{bucket} at {options['endpointurl']}"
    try:
        _bounded(f"An answer of {address}", listing)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "an error"))
        raise _Trouble(
            f"{address} answered {code}: {_STORAGE_ADVICE.get(code, 'try later')}."
        ) from None
    except BotoCoreError as error:
        raise _Trouble(f"{address} can't be reached ({type(error).__name__}).") from None
    return f"{address} answers"


_STORAGE_ADVICE = {
    "401": "the storage does not take the token",
    "403": "the storage does not take the token",
    "AccessDenied": "the token may not read this storage",
    "InvalidAccessKeyId": "the storage does not know the token",
    "SignatureDoesNotMatch": "the storage does not take the token, or this machine's clock is wrong",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
    "NoSuchBucket": "there is no such bucket; DagsHub's is called dvc",
}
