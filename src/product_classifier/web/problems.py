"""Every answer that is not a success has one shape: RFC 9457 problem+json with the request id."""

import json
import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
CLIENT_LEFT = 499  # the usual number in logs for a caller who did not wait for the answer
MAX_ERRORS = 20  # a caller fixes those first; the answer stays small whatever came


class Problem(Exception):
    """Ends a request with an answer of this shape; may be raised anywhere below the middlewares."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        type_: str = "about:blank",
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.type = type_
        self.headers = dict(headers or {})
        self.extra = extra

    def body(self, scope: Scope) -> dict[str, Any]:
        """Gives the members of the answer for one request."""
        return {
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": scope.get("path", ""),
            "request_id": scope.get("state", {}).get("request_id"),
            **self.extra,
        }


class FieldError(BaseModel):
    """One field that broke a rule."""

    field: str
    message: str


class ProblemDetails(BaseModel):
    """The shape, as the OpenAPI document shows it."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str = Field(description="Path of the request")
    request_id: str | None
    errors: list[FieldError] | None = Field(None, description="Only with 422: what broke a rule")


def problem_response(scope: Scope, problem: Problem) -> Response:
    """Renders a problem for one request."""
    content = json.dumps(problem.body(scope), ensure_ascii=False, default=str)
    # A path may hold what is no text: bytes that are not UTF-8 come in as lone surrogates.
    return Response(
        content.encode("utf-8", "backslashreplace"),
        problem.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


async def send_problem(scope: Scope, send: Send, problem: Problem) -> None:
    """Sends a problem from a middleware."""

    async def nothing_to_read() -> Message:  # a plain answer reads no body
        return {"type": "http.disconnect"}

    await problem_response(scope, problem)(scope, nothing_to_read, send)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documents statuses of a route: `responses=problem_responses(401, 422)`."""
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def describe_errors(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Names the fields that broke a rule and how; what came is never repeated."""
    described = []
    for error in list(errors)[:MAX_ERRORS]:
        place = [str(part) for part in error.get("loc", ())]
        if place and place[0] in ("body", "query", "path", "header"):
            place = place[1:] or place
        described.append({"field": ".".join(place)[:200], "message": _message(error)})
    return described


def _message(error: Mapping[str, Any]) -> str:
    # pydantic quotes what came in a few messages only; in those of a parser's own words it may.
    if error.get("type") == "json_invalid":
        return "The body is not JSON."
    return str(error.get("msg", "is not allowed"))[:300]


def install_problem_handlers(app: FastAPI) -> None:
    """Makes every error of an app's routes a problem."""

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return problem_response(request.scope, error)

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem_response(request.scope, _from_http_exception(error))

    async def on_invalid_request(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        fields = describe_errors(error.errors())
        where = ", ".join(dict.fromkeys(item["field"] for item in fields))
        problem = Problem(
            422, "Unprocessable Content", f"Not usable: {where}. See errors.", errors=fields
        )
        return problem_response(request.scope, problem)

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_invalid_request)


def _from_http_exception(error: HTTPException) -> Problem:
    phrase = HTTPStatus(error.status_code).phrase
    details = {404: "There is nothing at this address.", 405: "This address has no such method."}
    detail = str(error.detail)
    if detail == phrase:
        detail = details.get(error.status_code, detail)
    return Problem(error.status_code, phrase, detail, headers=error.headers)


def _left() -> Problem:
    """Gives what is answered, in the log alone, to a caller who did not send all of its body."""
    return Problem(CLIENT_LEFT, "Client Closed Request", "The caller did not wait for the answer.")


class FaultBarrier:
    """Pure ASGI middleware: an error that nobody expected is a 500 without details; the log has them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on, and answers for the app where it broke."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Problem as problem:
            await self._answer(scope, send, problem, started)
        except ClientDisconnect:  # no fault, or anybody could fill the log and the count of 5xx
            await self._answer(scope, send, _left(), started)
        except Exception:
            request_id = scope.get("state", {}).get("request_id")
            logger.exception("A request ended in a fault.", extra={"request_id": request_id})
            fault = Problem(500, "Internal Server Error", "The service could not answer.")
            await self._answer(scope, send, fault, started)

    async def _answer(self, scope: Scope, send: Send, problem: Problem, started: bool) -> None:
        if started:  # half an answer is out: only a closed connection says that it is not whole
            raise ConnectionAbortedError("An answer broke off.") from None
        await send_problem(scope, send, problem)
