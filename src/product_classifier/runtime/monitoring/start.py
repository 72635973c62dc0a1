"""`product-classifier monitoring`: the monitoring alone, or beside what runs already."""

from rich.console import Console
from rich.markup import escape

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings, get_settings
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.dotenv import complete_grafana_password
from product_classifier.runtime.health import wait_until_healthy
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.monitoring.alertmanager_config import Receivers
from product_classifier.runtime.monitoring.configuration import write_configuration
from product_classifier.runtime.monitoring.programs import (
    GRAFANA,
    find_program,
    find_programs,
    install_hint,
    missing_programs,
)
from product_classifier.runtime.monitoring.services import (
    SERVICES,
    monitoring_services,
    wants_monitoring,
)
from product_classifier.runtime.pipeline_metrics import prepare_metrics
from product_classifier.runtime.pipeline_start import one_start_at_a_time
from product_classifier.runtime.ports import require_free
from product_classifier.runtime.services import stage_workspace
from product_classifier.runtime.supervision import Supervisor

HEALTHY_SECONDS = 120.0


def needs_grafana_password(settings: Settings) -> bool:
    """Tells whether the embedded run has a Grafana that needs a password."""
    return settings.monitoring != "off" and find_program(GRAFANA) is not None


def address_lines(settings: Settings, grafana_password: str | None) -> list[str]:
    """Gives the lines about monitoring for the end of a start.

    Args:
        settings: Ports and receivers.
        grafana_password: What to say of it: the new one, or where it is; None where no Grafana runs.
    """
    lines = [
        # Its page of alerts is elsewhere in Debian's build; each leads on from here.
        f"Prometheus: http://localhost:{settings.prometheus_port}, "
        f"Alertmanager: http://localhost:{settings.alertmanager_port} "
        f"(alerts go to: {', '.join(Receivers.from_settings(settings).names())})"
    ]
    if grafana_password:
        lines.append(
            f"Grafana: http://localhost:{settings.grafana_port} (login admin, password {grafana_password})"
        )
    return lines


def embedded_lines(settings: Settings, new_password: str | None) -> list[str]:
    """Gives the lines about monitoring for the end of an embedded start."""
    if settings.monitoring == "off":
        return []
    if not wants_monitoring(settings):
        hint = install_hint(missing_programs(find_programs()))
        return [f"Monitoring was left out. {hint} Then: `make monitoring`."]
    password = new_password or "as GRAFANA_ADMIN_PASSWORD in .env"
    return address_lines(settings, password if needs_grafana_password(settings) else None)


def start_monitoring(layout: Layout, console: Console) -> None:
    """Starts or updates the monitoring's programs under the supervisor; leaves all others as they are.

    Raises:
        ConfigurationError: monitoring is off, a program is missing, a port is taken, a setting can't be used.
        RuntimeServiceError: a program does not become healthy; with the end of its log.
    """
    settings = get_settings()
    if settings.monitoring == "off":
        raise ConfigurationError("MONITORING=off: set it to auto or on in .env.")
    if missing := missing_programs(find_programs()):
        raise ConfigurationError(install_hint(missing))
    new_password = None
    if needs_grafana_password(settings):
        new_password = complete_grafana_password(layout.dotenv).grafana_password
        get_settings.cache_clear()
        settings = get_settings()
    layout.prepare()
    prepare_metrics(Workspace(stage_workspace(layout, settings)), settings)
    with one_start_at_a_time(layout):
        started = _apply(layout, settings, console)
    for line in [
        f"Started {', '.join(started)}." if started else "Runs already, unchanged.",
        *embedded_lines(settings, new_password),
    ]:
        console.print(escape(line), soft_wrap=True)


def _apply(layout: Layout, settings: Settings, console: Console) -> list[str]:
    supervisor = Supervisor(layout)
    services = monitoring_services(layout, settings)
    # What this supervisor has, not what lies in its folder from an earlier one's time.
    states = supervisor.states()
    require_free(services, supervisor)
    others = set(states) - set(SERVICES)
    # Alone, it looks after nothing that an earlier start had deployed: that was stopped on purpose.
    write_configuration(layout, settings, None if others else ())
    started = supervisor.apply(services, lambda: others)
    with console.status("Waiting") as status:
        names = [service.name for service in services]
        wait_until_healthy(supervisor, settings, status.update, HEALTHY_SECONDS, names)
    return sorted(set(started) & set(SERVICES))
