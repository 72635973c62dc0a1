"""What stands before every body: token, size and time are checked before a byte of it is read for the app.

Deny by default: a path that is not public needs a valid token, also one that does not exist. An answer given while
the caller still sends closes the connection; a little is read first, so that ordinary callers see the answer.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from product_classifier.web.body_room import BodyRoom
from product_classifier.web.problems import Problem, send_problem
from product_classifier.web.refusals import note_rejection, too_many_requests
from product_classifier.web.throttle import AnonymousThrottle
from product_classifier.web.tokens import (
    MAX_TOKEN_BYTES,
    KeysUnavailable,
    TokenClaims,
    TokenError,
)

logger = logging.getLogger(__name__)

MAX_HEADER_BYTES = 8 * 1024
DEFAULT_BODY_BYTES = 16 * 1024
BODY_SECONDS = 30.0  # for a whole body: a slow one holds memory and a place
DRAIN_BYTES = 256 * 1024
DRAIN_SECONDS = 0.5
UNTHROTTLED_PATHS = frozenset({"/health", "/ready", "/metrics"})

_BEARER = re.compile(rb"bearer +(\S+) *", re.IGNORECASE)


@dataclass(frozen=True)
class GuardPolicy:
    """What a service lets through.

    Attributes:
        verify: Checks a token; raises `TokenError`.
        public_paths: Exact paths that need no token.
        public_prefixes: Beginnings of such paths; for the documentation's static files only.
        body_bytes: Greatest body by exact path; elsewhere `DEFAULT_BODY_BYTES`.
        throttle: For callers without a valid token; None: no limit.
        unthrottled_paths: Exact paths that are not counted.
        room: For the bodies of all requests together.
    """

    verify: Callable[[str], Awaitable[TokenClaims]]
    public_paths: frozenset[str]
    public_prefixes: tuple[str, ...] = ()
    body_bytes: Mapping[str, int] = field(default_factory=dict)
    throttle: AnonymousThrottle | None = None
    unthrottled_paths: frozenset[str] = UNTHROTTLED_PATHS
    body_seconds: float = BODY_SECONDS
    room: BodyRoom = field(default_factory=BodyRoom)

    def is_public(self, path: str) -> bool:
        """Tells whether a path needs no token."""
        return path in self.public_paths or path.startswith(self.public_prefixes or ("\0",))


class BodyGuard:
    """Pure ASGI middleware; puts `claims` (`TokenClaims` or None) and `user` into `scope["state"]`.

    On a public path `token_error` says why there are no claims.
    """

    def __init__(self, app: ASGIApp, policy: GuardPolicy) -> None:
        self.app = app
        self.policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(scope, receive, send, self.policy)
        scope["state"].update(claims=None, user=None, token_error=None)
        try:
            await self._answer(scope, body)
        finally:
            body.give_room_back()

    async def _answer(self, scope: Scope, body: "_Body") -> None:
        try:
            _check_headers(scope)
            await self._check_caller(scope)
            _check_path(scope["path"])
            body.limit = self.policy.body_bytes.get(scope["path"], DEFAULT_BODY_BYTES)
            body.check_length()
        except Problem as problem:
            await send_problem(scope, body.send, problem)
            return
        await self._run(scope, body)

    async def _run(self, scope: Scope, body: "_Body") -> None:
        try:
            await self.app(scope, body.receive, body.send_unless_refused)
        except Exception:
            # The app may have made another error of it: what counts is why its body ended.
            if body.refusal is None or body.started:
                raise
        if body.refusal is not None and not body.started:
            await send_problem(scope, body.send, body.refusal)

    async def _check_caller(self, scope: Scope) -> None:
        path, state = scope["path"], scope["state"]
        public = self.policy.is_public(path)
        try:
            state["claims"] = claims = await self.policy.verify(_bearer_token(scope))
            state["user"] = claims.subject
        except KeysUnavailable as error:
            state["token_error"] = error
            if not public:
                note_rejection(scope, error.reason)
                self._throttle(scope)
                raise Problem(
                    503, "Service Unavailable", str(error), headers={"Retry-After": "5"}
                ) from None
        except TokenError as error:
            state["token_error"] = error
            # A page that needs no token refuses none; one that was looked at and refused counts, throttled or not.
            if not public and error.reason != "missing":
                note_rejection(scope, error.reason)
            self._throttle(scope)
            if not public:
                raise unauthorized(scope, error) from None

    def _throttle(self, scope: Scope) -> None:
        if self.policy.throttle is None or scope["path"] in self.policy.unthrottled_paths:
            return
        wait = self.policy.throttle.take(scope["state"]["address"])
        if wait is not None:
            detail = "Too many requests without a valid token came from this address."
            raise too_many_requests(scope, "anonymous", detail, wait)


def unauthorized(scope: Scope, error: TokenError) -> Problem:
    """Gives the 401 for a token that is not believed (RFC 6750: without a token, no error code)."""
    note_rejection(scope, error.reason)
    missing = error.reason == "missing"
    challenge = "Bearer" if missing else 'Bearer error="invalid_token"'
    return Problem(
        401,
        "Unauthorized",
        str(error),
        headers={"WWW-Authenticate": challenge},
        reason=error.reason,
    )


def _bearer_token(scope: Scope) -> str:
    """Takes the token out of the one Authorization header."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if not values:
        raise TokenError("missing", "This needs a token: `Authorization: Bearer <token>`.")
    match = _BEARER.fullmatch(values[0])
    if len(values) > 1 or match is None:
        raise TokenError("malformed", "Expected one header `Authorization: Bearer <token>`.")
    if len(match[1]) > MAX_TOKEN_BYTES:
        raise TokenError("too_large", f"A token has at most {MAX_TOKEN_BYTES} bytes.")
    return match[1].decode("latin-1")


def _check_headers(scope: Scope) -> None:
    size = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    size += len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    names = [name for name, _ in scope["headers"]]
    if size > MAX_HEADER_BYTES:
        raise Problem(
            431,
            "Request Header Fields Too Large",
            f"Address and headers together have at most {MAX_HEADER_BYTES} bytes.",
        )
    if b"transfer-encoding" in names and b"content-length" in names:
        # Two lengths: a proxy before us might believe the other one (request smuggling).
        raise Problem(400, "Bad Request", "Either Content-Length or Transfer-Encoding, not both.")


def _check_path(path: str) -> None:
    # The router takes `/predict` with a line feed behind it for `/predict`; limits go by exact paths.
    if path.endswith("\n"):
        raise Problem(404, "Not Found", "There is nothing at this address.")


class _BodyRefused(Exception):
    """Ends the app's reading; `_Body.refusal` says why."""


class _Body:
    """One request's body on its way to the app, and the answer on its way back."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, policy: GuardPolicy) -> None:
        headers = dict(scope["headers"])
        self._state = scope["state"]
        self._receive = receive
        self._send = send
        self._seconds = policy.body_seconds
        self._deadline = time.monotonic() + self._seconds
        self._room, self._owner, self._held = policy.room, "", 0
        length = headers.get(b"content-length", b"0")
        self._length = int(length) if length.isdigit() else None
        self._expects = b"expect" in headers
        # True until the last byte was read. Where no body was announced there is nothing to wait for.
        self._pending = self._length != 0 or b"transfer-encoding" in headers
        self._close = False
        self._read = 0
        self.limit = DEFAULT_BODY_BYTES
        self.refusal: Problem | None = None
        self.started = False

    def check_length(self) -> None:
        """Refuses a body that says that it is too large or not how large it is."""
        if self._length is None:
            raise Problem(400, "Bad Request", "Content-Length must be a number.")
        if self._length > self.limit:
            raise self._too_large()

    def _too_large(self) -> Problem:
        return Problem(
            413,
            "Content Too Large",
            f"A body here has at most {self.limit} bytes.",
            limit=self.limit,
        )

    async def receive(self) -> Message:
        if self.refusal is not None:
            raise _BodyRefused
        if not self._pending:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._deadline - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            self.refusal = Problem(
                408,
                "Request Timeout",
                f"A body must arrive within {self._seconds:g} seconds.",
            )
            raise _BodyRefused from None
        self._count(message)
        self.refusal = self._why_not(len(message.get("body", b"")))
        if self.refusal is not None:
            raise _BodyRefused
        return message

    def _why_not(self, size: int) -> Problem | None:
        """Says why the bytes that just came are not passed on; takes room for them where they are."""
        if self._read > self.limit:
            return self._too_large()
        user = self._state["user"]  # the guard has looked at the token before the first byte
        self._owner = self._owner or (f"user {user}" if user else self._state["address"])
        if size and not self._room.take(self._owner, size):
            self.give_room_back()  # at once: of many uploads at a time some must get through
            return Problem(
                503,
                "Service Unavailable",
                "Too many large bodies are held at the moment. Try again later.",
                headers={"Retry-After": "1"},
            )
        self._held += size
        return None

    def give_room_back(self) -> None:
        if self._held:
            self._room.give_back(self._owner, self._held)
            self._held = 0

    def _count(self, message: Message) -> None:
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._pending = message.get("more_body", False)
        else:
            self._pending = False

    async def send_unless_refused(self, message: Message) -> None:
        if self.refusal is None or self.started:
            await self.send(message)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._close = self._pending
            if self._close:
                MutableHeaders(scope=message)["Connection"] = "close"
        elif self._close and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _drain(self) -> None:
        # Closing with unread bytes resets the connection, and the caller may lose the answer with it.
        if self._expects:  # waits for "100 Continue": sends nothing now
            return
        drained = self._read
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while self._pending and self._read - drained < DRAIN_BYTES:
                    self._count(await self._receive())
        except TimeoutError:
            logger.debug("A caller went on sending after its answer.")
