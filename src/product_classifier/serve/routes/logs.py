"""`/logs`: the last requests, for admins."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from product_classifier.serve.dependencies import AdminUser, LogStoreDep
from product_classifier.serve.log_store import Level, select, summarise
from product_classifier.serve.schemas_shell import LogAnswer, LogStatistics
from product_classifier.web.problems import Problem, problem_responses

router = APIRouter(prefix="/logs", tags=["logs"])

_STATUSES = problem_responses(401, 403, 413, 422, 429, 431, 503)


@router.get("", response_model=LogAnswer, responses=_STATUSES)
async def list_entries(
    _admin: AdminUser,
    store: LogStoreDep,
    level: Annotated[Level | None, Query(description="Only entries of this level")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    since: Annotated[
        datetime | None,
        Query(description="Only entries from this moment on; ISO 8601, without a zone: UTC"),
    ] = None,
) -> dict[str, Any]:
    """List the last requests, newest first: INFO answered, WARNING refused (4xx), ERROR failed (5xx)."""
    moment = None
    if since is not None:
        moment = (since if since.tzinfo else since.replace(tzinfo=UTC)).timestamp()
    return {"entries": select(await store.entries(), level, moment, limit)}


@router.get("/stats", response_model=LogStatistics, responses=_STATUSES)
async def show_statistics(_admin: AdminUser, store: LogStoreDep) -> dict[str, Any]:
    """Count the kept requests by level, status and route, with the percentiles of their time."""
    return summarise(await store.entries())


@router.delete("", status_code=204, responses=_STATUSES)
async def clear_entries(_admin: AdminUser, store: LogStoreDep) -> None:
    """Forget the kept requests; the log file and stdout keep theirs."""
    if not await store.clear():
        raise Problem(
            503,
            "Service Unavailable",
            "Redis does not answer: its entries are still there.",
            headers={"Retry-After": "5"},
        )
