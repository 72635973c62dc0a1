"""Pages that need no token: what this is, and whether it is up."""

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import State

from product_classifier import __version__
from product_classifier.serve.dependencies import EngineDep
from product_classifier.serve.schemas_shell import Health, Message, Ready, Status
from product_classifier.web.leaving import refuse_when_leaving
from product_classifier.web.problems import Problem, problem_responses

router = APIRouter(tags=["status"])

_STATUSES = problem_responses(413, 429, 431, 503)


@router.get("/", responses=_STATUSES)
async def welcome() -> Message:
    """Say what this is."""
    return Message(
        message="Bienvenue sur l'API de classification de produits. Documentation : /docs"
    )


@router.get("/status", responses=_STATUSES)
async def show_status() -> Status:
    """Say that the API works, in the words of the earlier system."""
    return Status(status="L'API fonctionne correctement")


@router.get("/health", responses=problem_responses(413, 431))
async def show_health(engine: EngineDep) -> Health:
    """Say that the process lives, also without a model."""
    return Health(model_loaded=engine.model is not None, version=__version__)


@router.get(
    "/ready",
    responses=problem_responses(413, 431, 503),
    dependencies=[Depends(refuse_when_leaving)],
)
async def show_readiness(request: Request, engine: EngineDep) -> Ready:
    """Say whether predictions can be had: a bundle is loaded and warmed up, and tokens can be checked."""
    lacking = missing(request.app.state)
    model = engine.model
    if model is None or lacking:
        detail = f"Not ready: {' and '.join(lacking)}."
        raise Problem(503, "Service Unavailable", detail, headers={"Retry-After": "2"})
    return Ready(bundle_id=model.bundle_id, warmed=model.warmed)


def missing(state: State) -> list[str]:
    """Says what is not there yet that a prediction needs."""
    lacking = []
    if state.engine.model is None:
        lacking.append("no model is loaded")
    if not state.keys.ready:
        lacking.append("no key of auth is known")
    return lacking
