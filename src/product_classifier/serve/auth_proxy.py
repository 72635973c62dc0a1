"""Passes sign-in requests on to auth, for clients that know one address only. Reads no password and no token."""

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings
from product_classifier.web.problems import MEDIA_TYPE, Problem
from product_classifier.web.refusals import note_handed_on_limit

logger = logging.getLogger(__name__)

TOTAL_SECONDS = 10.0  # a password check costs 0.3 s of one processor, and others may be first
CONNECT_SECONDS = 2.0
MAX_ANSWER_BYTES = 64 * 1024
_PASSED_ON = (b"content-type", b"authorization")
_PASSED_BACK = ("content-type", "retry-after", "www-authenticate")
_MEDIA_TYPES = ("application/json", MEDIA_TYPE)


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    document: dict[str, Any]


class AuthProxy:
    """A client of auth's token routes; made in the service's lifespan."""

    def __init__(self, settings: Settings, *, total_seconds: float = TOTAL_SECONDS) -> None:
        """Keeps the address; connects to nobody.

        Raises:
            ConfigurationError: AUTH_URL is no address.
        """
        self._total_seconds = total_seconds
        self._http: httpx.AsyncClient | None = None
        try:
            self._url = httpx.URL(settings.auth_url)
        except httpx.InvalidURL:
            raise ConfigurationError("AUTH_URL is no address.") from None
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise ConfigurationError("AUTH_URL must be an address such as http://127.0.0.1:8011.")

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = httpx.AsyncClient(
                base_url=self._url,
                timeout=httpx.Timeout(self._total_seconds, connect=CONNECT_SECONDS),
                follow_redirects=False,
                trust_env=False,
                limits=httpx.Limits(max_connections=64, keepalive_expiry=5),
            )
        return self._http

    async def close(self) -> None:
        """Ends its connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def forward(self, request: Request, path: str) -> Response:
        """Passes a request on as it came, with the caller's address, and the answer back.

        Raises:
            Problem: 503, auth is away, too slow, or gives what is no answer of auth.
        """
        body = await request.body()
        state = request.scope["state"]
        # As bytes: a caller's header need not be ASCII.
        headers = [(name, value) for name, value in request.headers.raw if name in _PASSED_ON]
        headers.append((b"x-forwarded-for", state["address"].encode()))
        headers.append((b"x-request-id", state["request_id"].encode()))
        try:
            async with asyncio.timeout(self._total_seconds):
                answer = await self._exchange(path, headers, body)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            # Its text may repeat what was sent.
            logger.warning("auth does not answer: %s", type(error).__name__)
            raise Problem(
                503,
                "Service Unavailable",
                "The service that gives tokens does not answer. Tokens that are valid still work.",
                headers={"Retry-After": "5"},
            ) from None
        if answer.status == httpx.codes.TOO_MANY_REQUESTS:
            note_handed_on_limit(request.scope, answer.document)
        return Response(answer.body, answer.status, headers=answer.headers)

    async def _exchange(
        self, path: str, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> _Answer:
        content = bytearray()
        async with self._client().stream("POST", path, headers=headers, content=body) as response:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise ValueError("too large")
        kind = response.headers.get("content-type", "").partition(";")[0].strip()
        if content and kind not in _MEDIA_TYPES:
            raise ValueError("not JSON")
        document = json.loads(content) if content else {}
        if not isinstance(document, dict):
            raise ValueError("no JSON object")
        if response.status_code >= 400 and kind != MEDIA_TYPE:
            raise ValueError("no problem")
        passed = {name: response.headers[name] for name in _PASSED_BACK if name in response.headers}
        return _Answer(response.status_code, passed, bytes(content), document)
