"""What can go wrong between a client and the API, read from problem+json (RFC 9457)."""

from collections.abc import Mapping
from typing import Any

import httpx

from product_classifier.core.errors import ProductClassifierError

_SHOWN_CHARACTERS = 500


class ServerUnreachable(ProductClassifierError):
    """Nobody answers at the address, or not in time."""


class APIError(ProductClassifierError):
    """The API refused a request.

    Attributes:
        status: HTTP status code.
        title: What kind of problem it is.
        detail: What is wrong with this request.
        request_id: Under this the server's log has more; None where it gave none.
        problem: Everything that the answer said, `errors` of a 422 for example.
        retry_after_seconds: When the server wants to be asked again; None where it did not say.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        request_id: str | None = None,
        *,
        problem: Mapping[str, Any] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        self.status = status
        self.title = title
        self.detail = detail
        self.request_id = request_id
        self.problem = dict(problem or {})
        self.retry_after_seconds = retry_after_seconds
        named = f" (request {request_id})" if request_id else ""
        super().__init__(f"{status} {title}: {detail}{named}")

    @classmethod
    def from_response(cls, response: httpx.Response) -> "APIError":
        """Reads an answer that is not a success, whoever sent it: the API or something before it."""
        try:
            content = response.json()
        except ValueError:
            content = None
        problem = content if isinstance(content, dict) else {}
        title = str(problem.get("title") or response.reason_phrase or "Error")
        detail = problem.get("detail") or response.text[:_SHOWN_CHARACTERS] or "no reason given"
        return cls(
            response.status_code,
            title,
            str(detail),
            problem.get("request_id") or response.headers.get("X-Request-ID"),
            problem=problem,
            retry_after_seconds=_seconds(response.headers.get("Retry-After")),
        )


def _seconds(value: str | None) -> float | None:
    # The other form, a date, is not what this API sends.
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        return None
