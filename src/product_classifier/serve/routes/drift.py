"""`/model/drift`: how far what comes in is from what the model was tested on, for admins."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from product_classifier.modeling.observation_table import format_table
from product_classifier.serve.dependencies import AdminUser, DriftDep, EngineDep
from product_classifier.web.problems import problem_responses

router = APIRouter(
    prefix="/model/drift", tags=["model"], responses=problem_responses(401, 403, 413, 429, 431, 503)
)

_CSV: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/csv": {"schema": {"type": "string"}}},
        "description": "One line for each product: when, which bundle, numbers and codes.",
    }
}
Moment = Annotated[datetime | None, Query(description="ISO 8601; without a zone: UTC")]


@router.get("")
async def show_drift(_admin: AdminUser, engine: EngineDep, drift: DriftDep) -> dict[str, Any]:
    """Show the last products beside the live bundle's reference; `figures` is null where it has none."""
    engine.current()
    return drift.status()


@router.get(
    "/observations",
    response_class=Response,
    responses={**_CSV, **problem_responses(422)},
)
def list_observations(
    _admin: AdminUser, drift: DriftDep, since: Moment = None, until: Moment = None
) -> Response:
    """List what was observed of the last 10,000 products of this process, oldest first, without texts and photos."""
    kept = drift.recent(_seconds(since), _seconds(until))
    times = [datetime.fromtimestamp(one.at, UTC).isoformat(timespec="milliseconds") for one in kept]
    bundles = [one.bundle_id for one in kept]
    table = format_table((one.row for one in kept), {"time": times, "bundle_id": bundles})
    return Response(table, media_type="text/csv")


def _seconds(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
