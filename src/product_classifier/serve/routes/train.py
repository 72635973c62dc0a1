"""`/train`: starts the pipeline in Airflow and follows it. Nothing is ever trained in this process."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from product_classifier.serve.dependencies import AdminUser, AirflowDep
from product_classifier.serve.schemas_shell import RunAnswer, TrainRequest
from product_classifier.web.problems import problem_responses

router = APIRouter(prefix="/train", tags=["train"])

_STATUSES = problem_responses(400, 401, 403, 408, 413, 422, 429, 431, 503)


@router.post("", status_code=202, response_model=RunAnswer, responses=_STATUSES)
async def start_training(
    _admin: AdminUser, airflow: AirflowDep, body: TrainRequest | None = None
) -> dict[str, Any]:
    """Start a run of the DAG `ml_pipeline`, with parameters of its trigger form."""
    return asdict(await airflow.trigger(body.params if body else {}))


@router.get(
    "/{run_id}", response_model=RunAnswer, responses={**_STATUSES, **problem_responses(404)}
)
async def follow_training(_admin: AdminUser, airflow: AirflowDep, run_id: str) -> dict[str, Any]:
    """Show how far a run is: queued, running, success or failed."""
    return asdict(await airflow.find(run_id))
