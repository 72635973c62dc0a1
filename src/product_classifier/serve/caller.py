"""What a route knows of its call: its time, its id, which bundle answers, and whether its caller is still there."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from product_classifier.serve.engine import Answers

T = TypeVar("T")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Waits for work for as long as the caller does.

    Raises:
        ClientDisconnect: the caller has closed the connection; the work was cancelled.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_wait_until_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def note_bundle(request: Request, answers: Answers) -> None:
    """Puts the bundle that answers into the request's log line."""
    request.scope.setdefault("state", {})["bundle_id"] = answers.bundle_id


def request_id(request: Request) -> str | None:
    """Gives the id under which the log knows this request."""
    found: str | None = request.scope.get("state", {}).get("request_id")
    return found


def milliseconds(started: float) -> float:
    """Gives the time since `started` (`time.perf_counter`)."""
    return round(1000 * (time.perf_counter() - started), 3)
