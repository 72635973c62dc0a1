"""What routes ask for: the caller, the engine, and leave to go on."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer

from product_classifier.serve.airflow_client import AirflowClient
from product_classifier.serve.auth_proxy import AuthProxy
from product_classifier.serve.drift import DriftMonitor
from product_classifier.serve.engine import Engine
from product_classifier.serve.log_store import LogStore
from product_classifier.serve.model_metrics import ModelMetrics
from product_classifier.serve.reload import Reloader
from product_classifier.web.guard import unauthorized
from product_classifier.web.problems import Problem
from product_classifier.web.tokens import TokenClaims, TokenError

# Only for the OpenAPI document and its "Authorize" button: the guard has checked the token long before.
_scheme = OAuth2PasswordBearer(tokenUrl="token", auto_error=False, scheme_name="OAuth2Password")


def current_user(request: Request, _token: Annotated[str | None, Depends(_scheme)]) -> TokenClaims:
    """Gives the claims of the caller's token."""
    claims = request.scope["state"].get("claims")
    if not isinstance(claims, TokenClaims):  # the guard lets nobody come here without
        raise unauthorized(request.scope, TokenError("missing", "This needs a token."))
    return claims


CurrentUser = Annotated[TokenClaims, Depends(current_user)]


def admin_user(user: CurrentUser) -> TokenClaims:
    """Lets admins pass."""
    if user.role != "admin":
        raise Problem(403, "Forbidden", "Only an admin may do this.")
    return user


AdminUser = Annotated[TokenClaims, Depends(admin_user)]


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _log_store(request: Request) -> LogStore:
    store: LogStore = request.app.state.log_store
    return store


def _airflow(request: Request) -> AirflowClient:
    client: AirflowClient = request.app.state.airflow
    return client


def _metrics(request: Request) -> ModelMetrics:
    metrics: ModelMetrics = request.app.state.model_metrics
    return metrics


def _drift(request: Request) -> DriftMonitor:
    drift: DriftMonitor = request.app.state.drift
    return drift


DriftDep = Annotated[DriftMonitor, Depends(_drift)]
EngineDep = Annotated[Engine, Depends(_engine)]
LogStoreDep = Annotated[LogStore, Depends(_log_store)]


def _reloader(request: Request) -> Reloader:
    reloader: Reloader = request.app.state.reloader
    return reloader


def _auth_proxy(request: Request) -> AuthProxy:
    proxy: AuthProxy = request.app.state.auth_proxy
    return proxy


AirflowDep = Annotated[AirflowClient, Depends(_airflow)]
MetricsDep = Annotated[ModelMetrics, Depends(_metrics)]
ReloaderDep = Annotated[Reloader, Depends(_reloader)]
AuthProxyDep = Annotated[AuthProxy, Depends(_auth_proxy)]
