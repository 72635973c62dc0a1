"""The whole monitoring as it runs for a user: real Prometheus, Alertmanager and exporters around real services.

The programs, their commands, configuration and targets are those of the embedded run; the rules are the committed ones
(`keep_firing_seconds` may shorten how long an alert stays after its end).
All of it listens on free ports of 127.0.0.1 and keeps its data in a temporary folder. Start it with
`monitoring_stack(...)`; a test file begins with `require_monitoring()`.
"""

import os
import re
import shutil
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from monitoring_programs import Notice, Program, WebhookCatcher, running_program, webhook_catcher
from pipeline_figures import STALE_AFTER_HOURS, leave_pipeline_figures, send_airflow_statistics
from product_classifier.core.releases import point_champion, publish_release
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.api_services import remember_deployed
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.monitoring.configuration import write_configuration
from product_classifier.runtime.monitoring.programs import (
    find_programs,
    install_hint,
    missing_programs,
)
from product_classifier.runtime.monitoring.services import health_addresses, monitoring_services
from product_forms import held_out_items
from redis_process import RedisProcess, running_redis
from service_processes import Services, running_services
from traffic import Traffic
from unused_ports import free_ports

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[1]
JOBS = ("prometheus", "alertmanager", "fastapi", "auth", "node", "pipeline", "airflow")
SCRAPE_SECONDS = 10
UP_SECONDS = 300
STATSD_SECONDS = 5.0
_PORTS = (
    *("prometheus_port", "alertmanager_port", "node_exporter_port", "pipeline_exporter_port"),
    *("airflow_exporter_port", "statsd_port", "alert_log_port"),
)


def require_monitoring() -> None:
    """Skips a test file where the programs are missing; fails it where REQUIRE_MONITORING=1 says that they are not."""
    if missing := missing_programs(find_programs()):
        reason = f"NOT TESTED: monitoring. {install_hint(missing)}"
        if os.environ.get("REQUIRE_MONITORING") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason, allow_module_level=True)


@dataclass
class Series:
    """One series of an answer of Prometheus."""

    labels: Mapping[str, str]
    value: float


@dataclass
class MonitoringStack:
    """What runs, and questions to it."""

    workspace: Workspace
    settings: Settings
    services: Services
    webhook: WebhookCatcher
    redis: RedisProcess | None = None
    programs: dict[str, Program] = field(default_factory=dict)

    @property
    def prometheus(self) -> Program:
        """The running Prometheus."""
        return self.programs["prometheus"]

    @property
    def alertmanager(self) -> Program:
        """The running Alertmanager."""
        return self.programs["alertmanager"]

    def traffic(self, **options: Any) -> Traffic:
        """Makes traffic for these services out of products that training never saw."""
        return Traffic(self.services, held_out_items(self.workspace), **options)

    def query(self, expression: str) -> list[Series]:
        """Asks for an expression's value now."""
        path = "/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        result = self.prometheus.json(path)["data"]["result"]
        return [Series(one["metric"], float(one["value"][1])) for one in result]

    def query_range(
        self, expression: str, seconds: float, step: float = SCRAPE_SECONDS
    ) -> list[dict[str, Any]]:
        """Asks for an expression's values of the last seconds, as Grafana does for a panel."""
        end = time.time()
        asked = {"query": expression, "start": end - seconds, "end": end, "step": step}
        path = "/api/v1/query_range?" + urllib.parse.urlencode(asked)
        return list(self.prometheus.json(path)["data"]["result"])

    def value(self, expression: str) -> float | None:
        """The value of an expression with one series; None where there is none."""
        found = self.query(expression)
        assert len(found) <= 1, f"{expression} has {len(found)} series"
        return found[0].value if found else None

    def alerts(self, state: str = "firing") -> set[str]:
        """Names of the alerts in a state (`pending` or `firing`)."""
        alerts = self.prometheus.json("/api/v1/alerts")["data"]["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == state}

    def active(self) -> set[str]:
        """Names of the alerts that Alertmanager holds, also those that it keeps quiet."""
        return {one["labels"]["alertname"] for one in self.alertmanager.json("/api/v2/alerts")}

    def rules(self) -> list[dict[str, Any]]:
        """All rules, with their health."""
        groups = self.prometheus.json("/api/v1/rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def targets(self) -> dict[str, list[str]]:
        """Health of each job's targets."""
        found: dict[str, list[str]] = {}
        for one in self.prometheus.json("/api/v1/targets?state=active")["data"]["activeTargets"]:
            found.setdefault(one["labels"]["job"], []).append(one["health"])
        return found

    def wait_until(
        self, fact: Callable[[], T], seconds: float = 60, *, what: str = "the fact"
    ) -> T:
        """Waits until a question is answered with something true; fails with the state of the monitoring."""
        deadline = time.monotonic() + seconds
        while not (answer := fact()):
            if time.monotonic() > deadline:
                raise AssertionError(f"Not so after {seconds:.0f} s: {what}. {self.describe()}")
            time.sleep(0.5)
        return answer

    def notified(
        self, name: str, status: str = "firing", *, since: float = 0.0, seconds: float
    ) -> Notice:
        """Waits for a notification of an alert that came after `since`; fails with the state of the monitoring."""
        try:
            return self.webhook.wait_for(name, status, since=since, seconds=seconds)
        except AssertionError as error:
            error.add_note(self.describe())
            raise

    def describe(self) -> str:
        """Tells how things stand, for a failed test."""
        notices = [(one.name, one.severity, one.status) for one in self.webhook.notices]
        return (
            f"Targets: {self.targets()}. Firing: {sorted(self.alerts())}. Pending: "
            f"{sorted(self.alerts('pending'))}. Notices: {notices}. Logs: {self.workspace.root}"
        )


@contextmanager
def monitoring_stack(
    folder: Path,
    trained: Workspace,
    settings: Mapping[str, str] | None = None,
    *,
    with_redis: bool = False,
    with_pipeline: bool = False,
    keep_firing_seconds: int | None = None,
) -> Iterator[MonitoringStack]:
    """Starts services and monitoring, waits until every target is up, and ends all of it with the block.

    Args:
        folder: Gets the workspace with configuration, data and logs.
        trained: A trained workspace; it is copied.
        settings: More environment for the services.
        with_redis: Also starts a Redis, and tells the services of it.
        with_pipeline: Also leaves the figures of a pipeline that has run: a batch scored, its drift report, ends of
            tasks, Airflow's own. Takes half a minute more.
        keep_firing_seconds: In place of each `keep_firing_for` of the rules, which is up to an hour.
    """
    workspace = _checkout(trained, folder / "work space", keep_firing_seconds)
    with ExitStack() as stack:
        webhook = stack.enter_context(webhook_catcher())
        redis = stack.enter_context(running_redis(folder)) if with_redis else None
        told = {**({"REDIS_URL": redis.url} if redis else {}), **(settings or {})}
        services = stack.enter_context(running_services(workspace.root, told))
        configured = _settings(webhook, services)
        if with_pipeline:
            leave_pipeline_figures(workspace, configured)
        running = MonitoringStack(workspace, configured, services, webhook, redis)
        _start_programs(stack, running)
        if with_pipeline:
            stack.enter_context(_airflow_statistics(configured.statsd_port))
        running.wait_until(
            lambda: running.targets() == dict.fromkeys(JOBS, ["up"]), UP_SECONDS, what="all are up"
        )
        yield running


def _checkout(trained: Workspace, root: Path, keep_firing_seconds: int | None) -> Workspace:
    """Makes a workspace with a champion, and with what the embedded run looks for in a checkout."""
    shutil.copytree(trained.root, root, symlinks=True)
    workspace = Workspace(root)
    release = publish_release(workspace, workspace.candidate)
    point_champion(workspace, release.release_id, "for a test")
    if keep_firing_seconds is None:
        (root / "monitoring").symlink_to(REPOSITORY / "monitoring")
    else:
        _copy_monitoring(root / "monitoring", keep_firing_seconds)
    (root / ".venv").mkdir()
    (root / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    return workspace


def _copy_monitoring(target: Path, keep_firing_seconds: int) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "monitoring", target, ignore=ignored)
    for path in (target / "prometheus" / "rules").glob("*.yml"):
        kept = re.sub(
            r"(?<=^        keep_firing_for: )\w+$",
            f"{keep_firing_seconds}s",
            path.read_text(),
            flags=re.MULTILINE,
        )
        path.write_text(kept)


def _settings(webhook: WebhookCatcher, services: Services) -> Settings:
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    return Settings(
        _env_file=None,
        alert_webhook_url=webhook.url,
        auth_port=services.auth_port,
        serve_port=services.serve_port,
        pipeline_stale_after_hours=STALE_AFTER_HOURS,
        **ports,
    )  # type: ignore[call-arg]


def _start_programs(stack: ExitStack, running: MonitoringStack) -> None:
    layout = Layout(running.workspace.root)
    layout.prepare()
    for name in ("auth", "serve"):
        remember_deployed(layout, name)
    write_configuration(layout, running.settings)
    pages = health_addresses(running.settings)
    for service in monitoring_services(layout, running.settings):
        assert service.port is not None
        page = pages[service.name].partition(f":{service.port}")[2]
        running.programs[service.name] = stack.enter_context(
            running_program(service, layout.logs, page)
        )


@contextmanager
def _airflow_statistics(port: int) -> Iterator[None]:
    """Sends Airflow's statistics over and over: its heartbeat is one of them."""
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(STATSD_SECONDS):
            send_airflow_statistics(port)

    send_airflow_statistics(port)
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)
