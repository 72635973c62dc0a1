"""`product-classifier monitoring` in containers: the profile `monitoring`, alone or beside what runs of the stack."""

from rich.console import Console

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings, get_settings
from product_classifier.runtime.choice import RuntimeChoice
from product_classifier.runtime.compose_start import ComposeRun, published_monitoring_ports
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.monitoring.services import SERVICES
from product_classifier.runtime.pipeline_start import one_start_at_a_time
from product_classifier.runtime.ports import require_free_ports

IMAGES = ("auth",)  # alert-log is in it; all other images of the profile are official ones


class MonitoringRun(ComposeRun):
    """Starts or updates the stack's monitoring; leaves everything else of the stack as it is, and runs no pipeline."""

    def bring_up(self, settings: Settings) -> None:
        """Builds the image that is missing, brings the services up, waits until they are healthy."""
        alive = self.find_alive(settings)
        ours = {port for container in alive for port in container.published_ports}
        ports = published_monitoring_ports(settings)
        require_free_ports({name: port for name, port in ports.items() if port not in ours})
        self.prepare_files(settings, IMAGES)
        # An override of docker-compose.yml may leave some out: one that is named would be started all the same.
        there = self.compose.run("config", "--services").split()
        # The start of the stack is not noted anew: a service that is gone since the last one is still missed.
        self.bring_up_services(alive, *(name for name in SERVICES if name in there))


def start_stack_monitoring(layout: Layout, console: Console, choice: RuntimeChoice) -> None:
    """Brings the profile `monitoring` up.

    Raises:
        ConfigurationError: monitoring is off, a port is taken, a setting can't be used.
        RuntimeServiceError: a container does not become healthy; with the end of its log.
    """
    if get_settings().monitoring == "off":
        raise ConfigurationError("MONITORING=off: set it to auto or on in .env.")
    run = MonitoringRun(layout, console, choice)
    settings, generated = run.prepare()
    with one_start_at_a_time(layout):
        run.bring_up(settings)
    for line in run.monitoring_lines(settings, generated.grafana_password):
        run.say(line)
