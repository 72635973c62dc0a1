"""`product-classifier deploy`: brings auth or serve up under the running supervisor and waits until it is ready.

A task of the pipeline does this at the end of each run. A service that is up, ready and unchanged is left alone; one
whose command, settings, packages or code changed is replaced. serve exchanges its model itself when the champion moves:
it is only waited for.
"""

import logging
import time

import httpx

from product_classifier.core.errors import ConfigurationError, RuntimeServiceError
from product_classifier.core.releases import current_champion
from product_classifier.core.settings import MIN_PASSWORD_CHARACTERS, Settings, is_placeholder
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.api_services import (
    AUTH,
    SERVE,
    api_service,
    has_users,
    remember_deployed,
)
from product_classifier.runtime.health import api_addresses, log_tail
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.monitoring.targets import update_targets
from product_classifier.runtime.ports import require_free
from product_classifier.runtime.services import stage_workspace
from product_classifier.runtime.supervision import Supervisor

logger = logging.getLogger(__name__)

READY_TIMEOUT_SECONDS = 120.0
POLL_SECONDS = 0.3
PROGRESS_SECONDS = 5.0
LOG_LINES = 25


def check_settings(layout: Layout, settings: Settings, name: str) -> None:
    """Checks what a service can't start without.

    Raises:
        ConfigurationError: a secret is missing or unusable, or there is no model; says which.
    """
    problems: list[str] = []
    if name == AUTH:
        problems += settings.check_auth()
        fields = ["smoke_password"] if has_users(layout) else ["admin_password", "smoke_password"]
        for field in fields:
            secret = getattr(settings, field)
            value = secret.get_secret_value() if secret else ""
            if is_placeholder(value) or len(value) < MIN_PASSWORD_CHARACTERS:
                problems.append(
                    f"{field.upper()} is missing, a placeholder, or has fewer than "
                    f"{MIN_PASSWORD_CHARACTERS} characters: `make start` generates one into .env."
                )
    elif not settings.bundle_source and expected_bundle(layout, settings) is None:
        problems.append("There is no champion in models/: run the training stage first.")
    if problems:
        raise ConfigurationError(f"{name} can't be deployed. " + " ".join(problems))


def expected_bundle(layout: Layout, settings: Settings) -> str | None:
    """Names the bundle that serve has to answer with; None where it comes from elsewhere."""
    if settings.bundle_source:
        return None
    champion = current_champion(Workspace(stage_workspace(layout, settings)))
    return champion.content_id[:16] if champion else None


def deploy(
    layout: Layout,
    settings: Settings,
    name: str,
    timeout_seconds: float = READY_TIMEOUT_SECONDS,
) -> bool:
    """Makes a service run as it should, and waits until it is ready.

    Returns:
        Whether it was started or restarted.

    Raises:
        ConfigurationError: no supervisor runs, a setting is unusable, or the port is taken.
        RuntimeServiceError: it is not ready in time; with the end of its log.
    """
    supervisor = Supervisor(layout)
    if not supervisor.answers():
        raise ConfigurationError(
            f"No services run in {layout.root}. `make start` starts them and deploys {name}. "
            f"To run {name} alone, in the foreground: `product-classifier {name}`."
        )
    check_settings(layout, settings, name)
    service = api_service(layout, settings, name)
    require_free([service], supervisor)
    remember_deployed(layout, name)
    changed = supervisor.add(service)
    update_targets(layout, settings)
    logger.info("%s: %s.", name, "started" if changed else "runs already, unchanged")
    seconds = _wait(supervisor, settings, name, timeout_seconds)
    logger.info(
        "%s is ready.", name, extra={"url": service.url, "seconds": seconds, "restarted": changed}
    )
    return changed


def _wait(supervisor: Supervisor, settings: Settings, name: str, timeout_seconds: float) -> float:
    address = api_addresses(settings)[name]
    started = said = time.monotonic()
    while True:
        state = supervisor.states().get(name)
        missing = _missing(supervisor.layout, settings, name, address)
        now = time.monotonic()
        if state is not None and state.alive and missing is None:
            return round(now - started, 1)
        if state is None or state.state == "FATAL" or now - started > timeout_seconds:
            what = {None: "is not known to the supervisor", "FATAL": "ended again and again"}.get(
                state.state if state else None,
                f"is not ready after {now - started:.0f} s: {missing}",
            )
            raise RuntimeServiceError(
                f"{name} {what}. The end of its log:\n"
                f"{log_tail(supervisor.layout, name, LOG_LINES)}"
            )
        if now - said >= PROGRESS_SECONDS:
            said = now
            logger.info("Waiting for %s (%.0f s): %s.", name, now - started, missing or state.state)
        time.sleep(POLL_SECONDS)


def _missing(layout: Layout, settings: Settings, name: str, address: str) -> str | None:
    """Says what a service still lacks; None where it is ready."""
    try:
        answer = httpx.get(f"{address}/ready", timeout=5, trust_env=False)
    except httpx.HTTPError as error:
        return f"no answer yet ({type(error).__name__})"
    if answer.status_code != httpx.codes.OK:
        return f"/ready answers {answer.status_code}"
    expected = expected_bundle(layout, settings) if name == SERVE else None
    if expected is None:
        return None
    try:
        serves = answer.json().get("bundle_id")
    except (ValueError, AttributeError):
        return "/ready answers something else than JSON"
    return None if serves == expected else f"it serves bundle {serves}, expected {expected}"
