"""`product-classifier start` in containers: images built, the stack up, the same pipeline run in it."""

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import httpx
from rich.console import Console

from product_classifier.core.errors import ConfigurationError, RuntimeServiceError
from product_classifier.core.settings import Settings, get_settings
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.airflow_api import AirflowAPI
from product_classifier.runtime.api_services import STOP_MARGIN_SECONDS, local_url
from product_classifier.runtime.choice import RuntimeChoice
from product_classifier.runtime.compose import Compose, Container, docker
from product_classifier.runtime.compose_values import (
    MONITORING,
    TRACKING,
    compose_values,
    profiles,
)
from product_classifier.runtime.dotenv import Generated, complete_dotenv, missing_secrets
from product_classifier.runtime.follow import RunFollower
from product_classifier.runtime.images import IMAGES, build_images, missing_images
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.monitoring.programs import PROMETHEUS
from product_classifier.runtime.monitoring.stack import prepare_stack
from product_classifier.runtime.monitoring.stack_started import forget_stack_start, note_stack_start
from product_classifier.runtime.monitoring.start import address_lines
from product_classifier.runtime.mounted_files import open_mounted_files
from product_classifier.runtime.pipeline_start import PipelineStart, one_start_at_a_time
from product_classifier.runtime.ports import LOOPBACK, require_free_ports
from product_classifier.runtime.services import AIRFLOW_DAG_PROCESSOR, stage_workspace
from product_classifier.runtime.task_log import render_events

POLL_SECONDS = 1.5
LOG_SECONDS = 3.0  # a task's log is asked for no more often
DEPLOYED_TIMEOUT_SECONDS = 60.0


def published_ports(settings: Settings) -> dict[str, int]:
    """Gives the ports that the stack takes on this machine, by their setting."""
    ports = {
        "AIRFLOW_PORT": settings.airflow_port,
        "SERVE_PORT": settings.serve_port,
        "AUTH_PORT": settings.auth_port,
    }
    if TRACKING in profiles(settings):
        ports["MLFLOW_PORT"] = settings.mlflow_port
    if MONITORING in profiles(settings):
        ports |= published_monitoring_ports(settings)
    return ports


def published_monitoring_ports(settings: Settings) -> dict[str, int]:
    """Gives those of the profile `monitoring`."""
    return {
        "PROMETHEUS_PORT": settings.prometheus_port,
        "ALERTMANAGER_PORT": settings.alertmanager_port,
        "NODE_EXPORTER_PORT": settings.node_exporter_port,
        "GRAFANA_PORT": settings.grafana_port,
    }


def complete_stack_dotenv(layout: Layout) -> Generated:
    """Generates what `.env` lacks for the stack.

    Raises:
        ConfigurationError: passwords are missing, but a database made with earlier ones is there.
    """
    project = get_settings().compose_project_name
    volume = f"{project}_postgres-data"
    made = missing_secrets(layout.dotenv, ["POSTGRES_PASSWORD", "AIRFLOW_DB_PASSWORD"])
    if made and volume in docker("volume", "ls", "--format", "{{.Name}}").splitlines():
        raise ConfigurationError(
            f"{' and '.join(made)} is not set, but the volume {volume} holds a database made with "
            "an earlier one. Bring that .env back; or, to begin anew without users, runs and "
            f"history, remove the volumes: docker compose -p {project} down --volumes."
        )
    return complete_dotenv(layout.dotenv, stack=True)


class LogReader:
    """Reads the tasks' logs over Airflow's API, since they lie in a volume."""

    def __init__(self, api: AirflowAPI, run_id: str) -> None:
        self._api = api
        self._run_id = run_id
        self._kept: dict[tuple[Any, ...], tuple[float, list[str]]] = {}

    def __call__(self, task: dict[str, Any], lines: int) -> list[str]:
        """Gives the last lines; what was read a moment ago is not asked for again."""
        key = (task["task_id"], task.get("map_index"), task["try_number"], lines)
        read, kept = self._kept.get(key, (0.0, []))
        if time.monotonic() - read < LOG_SECONDS:
            return kept
        with suppress(RuntimeServiceError):  # progress goes on without this line
            kept = render_events(self._api.log(self._run_id, task), lines)
        self._kept[key] = (time.monotonic(), kept)
        return kept


class ComposeRun(PipelineStart):
    """Starts the stack of one checkout and runs the pipeline in it."""

    def __init__(self, layout: Layout, console: Console, choice: RuntimeChoice) -> None:
        super().__init__(layout, console, choice)
        self.compose = Compose(layout, get_settings().compose_project_name)

    def complete_settings(self) -> Generated:
        """Generates the passwords and keys that are missing."""
        return complete_stack_dotenv(self.layout)

    def bring_up(self, settings: Settings) -> None:
        """Builds what is not built yet, brings the stack up, waits until it is healthy."""
        alive = self.find_alive(settings)
        if not alive:
            require_free_ports(published_ports(settings))
        self.prepare_files(settings)
        if MONITORING in profiles(settings):
            workspace = Workspace(stage_workspace(self.layout, settings))
            note_stack_start(workspace, watched=PROMETHEUS in {c.service for c in alive})
        self.bring_up_services(alive)

    def find_alive(self, settings: Settings) -> list[Container]:
        """Chooses the profiles by the settings, and lists what runs already."""
        self.compose = Compose(self.layout, settings.compose_project_name, profiles(settings))
        return [c for c in self.compose.containers() if c.alive]

    def prepare_files(self, settings: Settings, images: Sequence[str] = IMAGES) -> None:
        """Builds those images that are missing, and writes what docker-compose.yml and the containers read."""
        values = compose_values(self.layout, settings)
        self._warn_of_root(values.get("STAGE_USER", ""))
        self._build(settings, values, images)
        if MONITORING in profiles(settings):
            values |= prepare_stack(self.layout, settings)
        self.compose.write_values(values)
        open_mounted_files(self.layout.root)

    def bring_up_services(self, alive: Collection[Container], *names: str) -> None:
        """Starts or updates these services, or all of the profiles', waits for them, and says what is new."""
        before = {c.id for c in alive}
        started = time.monotonic()
        self._up(*names)
        after = self.compose.containers()
        new = sorted({c.service for c in after if c.id not in before and c.alive})
        seconds = time.monotonic() - started
        if new:
            self.say(f"Started {', '.join(new)} in {seconds:.0f} s.")
        else:
            running = sorted({c.service for c in after if c.alive})
            self.say(f"Running already: {', '.join(running)}.")

    def _warn_of_root(self, user: str) -> None:
        if user.startswith("0:"):
            self.say(
                "Warning: stages run as root, as this checkout belongs to it. Set AIRFLOW_UID to your "
                "own number (`id -u`), or clone as another user."
            )

    def _build(self, settings: Settings, values: dict[str, str], names: Sequence[str]) -> None:
        tag = values.get("IMAGE_TAG") or str(settings.image_tag)
        missing = missing_images(settings.image_prefix, tag, names)
        if not missing:
            return
        if settings.image_tag:
            raise ConfigurationError(
                f"IMAGE_TAG={tag} is set, but there are no such images of {', '.join(missing)}. "
                "Run `make build`, or leave IMAGE_TAG empty."
            )
        self.say(f"Building {', '.join(missing)} ({tag}); the first time takes some minutes.")
        started = time.monotonic()
        gpu = settings.train_gpus is not None
        build_images(self.layout.root, settings.image_prefix, tag, missing, gpu=gpu)
        self.say(f"Built in {time.monotonic() - started:.0f} s.")

    def _up(self, *names: str) -> None:
        log = self.layout.logs / "compose.log"
        process = self.compose.start_up(log, *names)
        began = time.monotonic()
        with self.console.status("Starting") as status:
            while process.poll() is None:
                waiting = sorted({c.service for c in self.compose.containers() if not c.healthy})
                seconds = time.monotonic() - began
                status.update(f"Waiting for {', '.join(waiting) or 'containers'} ({seconds:.0f} s)")
                time.sleep(POLL_SECONDS)
        if process.returncode:
            raise RuntimeServiceError(self._explain(log.read_text(errors="replace")))

    def _explain(self, said: str) -> str:
        lines = [line for line in said.splitlines() if line.strip()][-8:]
        text = "The stack did not come up:\n" + "\n".join(lines)
        broken = [c for c in self.compose.containers() if c.role == "stack" and not c.healthy]
        # What waits for another one was only created: it has nothing to say.
        for container in [c for c in broken if c.state != "created"][:3]:
            tail = self.compose.log_tail(container)
            text += f"\n{container.service} ({container.status}), the end of its log:\n{tail}"
        return text

    def _services(self) -> list[Container]:
        return [c for c in self.compose.containers() if c.role == "service" and c.alive]

    def wait_for_deployed(self, settings: Settings) -> None:
        """Waits for what the pipeline deployed before."""
        if not self._services():
            self.say("auth and serve are deployed by the pipeline: `make start` runs it.")
            return
        deadline = time.monotonic() + DEPLOYED_TIMEOUT_SECONDS
        while not self.api_is_up(settings):
            if time.monotonic() > deadline:
                self.say(f"Warning: auth or serve is not ready after {DEPLOYED_TIMEOUT_SECONDS} s.")
                return
            time.sleep(0.5)

    def dag_processor_started(self) -> float:
        """Gives when its container was started."""
        moment = self.compose.started(AIRFLOW_DAG_PROCESSOR)
        if not moment:
            raise RuntimeServiceError(f"{AIRFLOW_DAG_PROCESSOR} does not run: `make logs`.")
        return datetime.fromisoformat(moment).timestamp()

    def follower(self, api: AirflowAPI, run_id: str) -> RunFollower:
        """Reads the tasks' logs over the API."""
        return RunFollower(api, self.layout, self.console, run_id, LogReader(api, run_id))

    def monitoring_lines(self, settings: Settings, new_password: str | None) -> list[str]:
        """Names what the profile `monitoring` runs."""
        if MONITORING not in profiles(settings):
            return []
        return address_lines(settings, new_password or "as GRAFANA_ADMIN_PASSWORD in .env")

    def api_is_up(self, settings: Settings) -> bool:
        """Asks both services through the gateway."""
        for port in (settings.auth_port, settings.serve_port):
            try:
                url = f"{local_url(LOOPBACK, port)}/ready"
                answer = httpx.get(url, timeout=5, trust_env=False)
            except httpx.HTTPError:
                return False
            if answer.status_code != httpx.codes.OK:
                return False
        return True


def stop_stack(layout: Layout, settings: Settings) -> bool:
    """Ends the stack and what the pipeline deployed; True where something ran. Volumes stay."""
    layout.prepare()
    with one_start_at_a_time(layout):
        grace = settings.shutdown_grace_seconds + STOP_MARGIN_SECONDS
        ran = Compose(layout, settings.compose_project_name).stop(grace)
        forget_stack_start(Workspace(stage_workspace(layout, settings)))
    return ran
