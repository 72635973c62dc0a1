"""The outermost middleware: gives a request its id, and the log its one line."""

import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from prometheus_fastapi_instrumentator.routing import get_route_name
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from product_classifier.web.problems import CLIENT_LEFT
from product_classifier.web.proxies import TrustedProxies, client_address

access_logger = logging.getLogger("product_classifier.access")

REQUEST_ID_HEADER = "X-Request-ID"
KNOWN_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
OTHER_METHOD = "OTHER"
UNMATCHED = "unmatched"

# Machines ask these each second: all is well is said at DEBUG, or it would push every other entry out of the log.
_POLLED = frozenset({"/health", "/ready", "/metrics"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STRICT_POLICY = "default-src 'none'; frame-ancestors 'none'"
# The documentation pages have one script of their own inside them; everything else comes from this service.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'none'"
)


class RequestContext:
    """Pure ASGI middleware that every request passes first.

    Puts `request_id`, `started` (perf_counter) and `address` into `scope["state"]`. The log line says `user` and
    `bundle_id` where something below puts them there too; headers in `answer_headers` go on the answer, whatever it is.
    """

    def __init__(
        self,
        app: ASGIApp,
        trusted: TrustedProxies | None = None,
        on_entry: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Sets it up.

        Args:
            app: What comes next.
            trusted: Proxies whose word on the caller's address counts.
            on_entry: Gets each log entry too; must not wait.
        """
        self.app = app
        self._trusted = trusted or TrustedProxies()
        self._on_entry = on_entry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on in its context."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in KNOWN_METHODS else OTHER_METHOD
        # HEAD is answered as GET without its body, so that every page has both. Also: `app` changes this copy only.
        scope = {**scope, "method": "GET" if method == "HEAD" else method}
        state = scope["state"] = dict(scope.get("state") or {})
        state["request_id"] = self._request_id(scope)
        state["started"] = time.perf_counter()
        state["address"] = client_address(scope, self._trusted)
        answer = _Answer(send, scope, bodiless=method == "HEAD")
        try:
            await self.app(scope, receive, answer.send)
        finally:
            self._log(scope, method, answer.status)

    @staticmethod
    def _request_id(scope: Scope) -> str:
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex

    def _log(self, scope: Scope, method: str, status: int) -> None:
        state = scope["state"]
        milliseconds = round((time.perf_counter() - state["started"]) * 1000, 1)
        route = route_template(scope)
        entry = {
            "request_id": state["request_id"],
            "method": method,
            "route": route,
            "status": status,
            "milliseconds": milliseconds,
            "user": state.get("user"),
            "bundle_id": state.get("bundle_id"),
            "address": state["address"],
        }
        polled = route in _POLLED and status < 400
        level = logging.DEBUG if polled else logging.INFO
        access_logger.log(level, "%s %s %d", method, route, status, extra=entry)
        if self._on_entry is not None and not polled:
            self._on_entry({"time": time.time(), **entry})


def route_template(scope: Scope) -> str:
    """Names the route of a request by its template, never by its path: a path may hold anything."""
    state = scope["state"]
    if "route" not in state:  # looked up once: it means asking every route
        name = get_route_name(HTTPConnection(scope), should_include_root_path=False)
        state["route"] = name or UNMATCHED
    route: str = state["route"]
    return route


class _Answer:
    """Adds the headers that every answer has, and remembers its status."""

    def __init__(self, send: Send, scope: Scope, bodiless: bool) -> None:
        self._send = send
        self._scope = scope
        self._bodiless = bodiless
        self.status = CLIENT_LEFT

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._add_headers(MutableHeaders(scope=message))
        elif self._bodiless and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)

    def _add_headers(self, headers: MutableHeaders) -> None:
        is_page = headers.get("content-type", "").startswith("text/html")
        headers[REQUEST_ID_HEADER] = self._scope["state"]["request_id"]
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Content-Security-Policy"] = _PAGE_POLICY if is_page else _STRICT_POLICY
        headers.setdefault("Cache-Control", "no-store")
        for name, value in self._scope["state"].get("answer_headers", {}).items():
            headers[name] = value
