"""The monitoring's programs as supervised services: command, files and port of each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.files import sha256_bytes
from product_classifier.core.settings import Settings
from product_classifier.runtime.api_services import build_services
from product_classifier.runtime.layout import STATE_VARIABLE, Layout
from product_classifier.runtime.monitoring.configuration import metrics_folder, rendered_files
from product_classifier.runtime.monitoring.grafana import embedded_environment, grafana_command
from product_classifier.runtime.monitoring.programs import (
    ALERTMANAGER,
    GRAFANA,
    NODE_EXPORTER,
    PROMETHEUS,
    STATSD_EXPORTER,
    find_programs,
    install_hint,
    missing_programs,
)
from product_classifier.runtime.monitoring.targets import LOOPBACK
from product_classifier.runtime.services import (
    Service,
    folder_fingerprint,
    lock_fingerprint,
    machine_environment,
)

PIPELINE_EXPORTER, ALERT_LOG = "pipeline-exporter", "alert-log"
SERVICES = (
    *(PROMETHEUS, ALERTMANAGER, NODE_EXPORTER, PIPELINE_EXPORTER),
    *(STATSD_EXPORTER, ALERT_LOG, GRAFANA),
)
_CONFIGURATION = "PRODUCT_CLASSIFIER_CONFIG"


@dataclass(frozen=True)
class _Builder:
    """What the services have in common: one checkout, its settings, the programs of this machine."""

    layout: Layout
    settings: Settings
    programs: dict[str, str]

    def service(
        self,
        name: str,
        command: list[str],
        port_setting: str,
        *,
        directory: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> Service:
        """Describes a program that listens on a port of loopback."""
        port = getattr(self.settings, port_setting.lower())
        return Service(
            name,
            tuple(command),
            directory or self.layout.monitoring,
            {STATE_VARIABLE: str(self.layout.state), **(environment or {})},
            machine=machine_environment(),
            port=port,
            port_setting=port_setting,
            url=f"http://localhost:{port}",
        )

    def listen(self, port: int) -> str:
        """Gives the option that Prometheus's family of programs shares."""
        return f"--web.listen-address={LOOPBACK}:{port}"

    def data(self, name: str) -> Path:
        """Gives the folder that a program keeps its data in."""
        return self.layout.monitoring / f"{name}-data"

    def prometheus(self) -> Service:
        """Describes Prometheus; changed rules or targets' settings restart it, and its data stay."""
        settings, source = self.settings, self.layout.monitoring_source / "prometheus"
        file = self.layout.monitoring / PROMETHEUS / "prometheus.yml"
        command = [
            self.programs[PROMETHEUS],
            f"--config.file={file}",
            f"--storage.tsdb.path={self.data(PROMETHEUS)}",
            f"--storage.tsdb.retention.time={settings.prometheus_retention}",
            self.listen(settings.prometheus_port),
            # Links in alerts begin with it.
            f"--web.external-url=http://localhost:{settings.prometheus_port}",
        ]
        environment = {
            _CONFIGURATION: self._digest(file),
            "PRODUCT_CLASSIFIER_RULES": folder_fingerprint(source, "rules"),
        }
        return self.service(PROMETHEUS, command, "PROMETHEUS_PORT", environment=environment)

    def _digest(self, file: Path) -> str:
        text = rendered_files(self.layout, self.settings)[file]
        return sha256_bytes(text.encode())[:16]

    def alertmanager(self) -> Service:
        """Describes Alertmanager, alone: without a cluster it opens no port to the network."""
        port = self.settings.alertmanager_port
        file = self.layout.monitoring / ALERTMANAGER / "alertmanager.yml"
        command = [
            self.programs[ALERTMANAGER],
            f"--config.file={file}",
            f"--storage.path={self.data(ALERTMANAGER)}",
            self.listen(port),
            f"--web.external-url=http://localhost:{port}",
            "--cluster.listen-address=",
        ]
        environment = {_CONFIGURATION: self._digest(file)}
        return self.service(ALERTMANAGER, command, "ALERTMANAGER_PORT", environment=environment)

    def node_exporter(self) -> Service:
        """Describes the exporter of this machine."""
        port = self.settings.node_exporter_port
        command = [
            self.programs[NODE_EXPORTER],
            self.listen(port),
            "--no-collector.textfile",
            "--no-collector.systemd",  # Debian turns it on; in a container each scrape would log an error
        ]
        return self.service(NODE_EXPORTER, command, "NODE_EXPORTER_PORT")

    def pipeline_exporter(self) -> Service:
        """Describes the exporter of the text files, which reads each writer's folder."""
        command = [
            self.programs[NODE_EXPORTER],
            self.listen(self.settings.pipeline_exporter_port),
            "--collector.disable-defaults",
            "--collector.textfile",
            # A pattern, relative to where it runs: so no character of the checkout's path is part of it.
            "--collector.textfile.directory=*",
            "--web.disable-exporter-metrics",
        ]
        directory = metrics_folder(self.layout, self.settings)
        return self.service(
            PIPELINE_EXPORTER, command, "PIPELINE_EXPORTER_PORT", directory=directory
        )

    def statsd_exporter(self) -> Service:
        """Describes what takes Airflow's StatsD: the exporter where it is installed, else our bridge."""
        settings = self.settings
        mapping = self.layout.monitoring_source / "statsd" / "mapping.yml"
        program = self.programs.get(STATSD_EXPORTER)
        command = [
            *(
                [program]
                if program
                else [str(self.layout.program("product-classifier")), "statsd-exporter"]
            ),
            f"--statsd.listen-udp={LOOPBACK}:{settings.statsd_port}",
            *(["--statsd.listen-tcp="] if program else []),
            f"--statsd.mapping-config={mapping}",
            self.listen(settings.airflow_exporter_port),
        ]
        digest = sha256_bytes(mapping.read_bytes())[:16] if mapping.exists() else ""
        environment = {_CONFIGURATION: digest}
        if not program:
            environment |= self._our_code()
        return self.service(
            STATSD_EXPORTER,
            command,
            "AIRFLOW_EXPORTER_PORT",
            environment=environment,
        )

    def alert_log(self) -> Service:
        """Describes the program that writes every notification to its log."""
        command = [
            *(str(self.layout.program("product-classifier")), "alert-log"),
            f"--port={self.settings.alert_log_port}",
        ]
        return self.service(ALERT_LOG, command, "ALERT_LOG_PORT", environment=self._our_code())

    def _our_code(self) -> dict[str, str]:
        here = Path(__file__).parents[1]
        return {
            **lock_fingerprint(self.layout.root / "uv.lock"),
            "PRODUCT_CLASSIFIER_CODE": folder_fingerprint(here, "monitoring"),
            "PYTHONUNBUFFERED": "1",
        }

    def grafana(self) -> Service:
        """Describes Grafana."""
        password, data = self.settings.grafana_admin_password, self.data(GRAFANA)
        if password is None:  # it would take its own default, which everybody knows
            raise ConfigurationError("GRAFANA_ADMIN_PASSWORD is missing: `make env` generates it.")
        return self.service(
            GRAFANA,
            grafana_command(Path(self.programs[GRAFANA])),
            "GRAFANA_PORT",
            environment=embedded_environment(self.layout, self.settings, data, password),
        )


def wants_monitoring(settings: Settings) -> bool:
    """Tells whether the embedded run has monitoring: it is not off, and its programs are here.

    Raises:
        ConfigurationError: it was asked for, and a program is missing; says how to install it.
    """
    if settings.monitoring == "off":
        return False
    missing = missing_programs(find_programs())
    if missing and settings.monitoring == "on":
        raise ConfigurationError(f"MONITORING=on. {install_hint(missing)}")
    return not missing


def monitoring_services(layout: Layout, settings: Settings) -> list[Service]:
    """Lists the monitoring's services; none where it is off, or where auto finds no programs.

    Raises:
        ConfigurationError: see `wants_monitoring` and `rendered_files`.
    """
    if not wants_monitoring(settings):
        return []
    builder = _Builder(layout, settings, find_programs())
    makers: list[Callable[[], Service]] = [
        *(builder.prometheus, builder.alertmanager, builder.node_exporter),
        *(builder.pipeline_exporter, builder.statsd_exporter, builder.alert_log),
    ]
    if GRAFANA in builder.programs and settings.grafana_admin_password:
        makers.append(builder.grafana)
    return [make() for make in makers]


def all_services(layout: Layout, settings: Settings) -> list[Service]:
    """Lists every service that `start` runs: the pipeline's, what it deployed, the monitoring's."""
    return [*build_services(layout, settings), *monitoring_services(layout, settings)]


def health_addresses(settings: Settings) -> dict[str, str]:
    """Gives the page of each service that answers 200 when it is well."""
    pages = {
        PROMETHEUS: (settings.prometheus_port, "-/ready"),
        ALERTMANAGER: (settings.alertmanager_port, "-/ready"),
        NODE_EXPORTER: (settings.node_exporter_port, ""),
        PIPELINE_EXPORTER: (settings.pipeline_exporter_port, ""),
        STATSD_EXPORTER: (settings.airflow_exporter_port, "metrics"),
        ALERT_LOG: (settings.alert_log_port, "health"),
        GRAFANA: (settings.grafana_port, "api/health"),
    }
    return {name: f"http://{LOOPBACK}:{port}/{page}" for name, (port, page) in pages.items()}
