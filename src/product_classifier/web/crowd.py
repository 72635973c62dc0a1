"""A limit to how many requests are in flight at one time, whoever sends them."""

from starlette.types import ASGIApp, Receive, Scope, Send

from product_classifier.web.problems import Problem, send_problem

MAX_REQUESTS = 1000
_EXEMPT = frozenset({"/health", "/ready", "/metrics"})


class CrowdLimit:
    """Pure ASGI middleware: more are answered 503 at once, except health and metrics. Inside of what counts answers."""

    def __init__(self, app: ASGIApp, max_requests: int = MAX_REQUESTS) -> None:
        self.app = app
        self._max_requests = max_requests
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self._in_flight += 1
        try:
            if self._in_flight > self._max_requests and scope["path"] not in _EXEMPT:
                await send_problem(scope, send, _too_many())
            else:
                await self.app(scope, receive, send)
        finally:
            self._in_flight -= 1


def _too_many() -> Problem:
    return Problem(
        503,
        "Service Unavailable",
        "Too many requests at one time.",
        headers={"Retry-After": "1", "Connection": "close"},
    )
